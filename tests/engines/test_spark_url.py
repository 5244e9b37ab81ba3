"""Tests of the URL of a warehouse on Spark: its forms, and one sentence for each other one."""

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

import pytest

from finrisk_assets.engines.engine import EngineError
from finrisk_assets.engines.spark import spark_url
from finrisk_assets.engines.spark.spark_engine import SparkEngine
from finrisk_assets.engines.spark.spark_url import SparkUrl, check_spark
from finrisk_assets.settings import Settings


@pytest.mark.parametrize(
    "master",
    [
        *("local", "local[2]", "local[*]", "local[*, 3]", "spark://host:7077", "spark://one:7077,[::1]:7077"),
        *("sc://host:15002", "sc://host:443/;token=secret"),
    ],
)
def test_a_url_names_master_folder_and_settings(master):
    url = SparkUrl.parse(f"pyspark://{master}?warehouse=/shared/tables&spark.executor.memory=4g")
    assert (url.master, url.warehouse, url.settings) == (master, "/shared/tables", {"spark.executor.memory": "4g"})
    assert url.is_connect == master.startswith("sc")


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("pyspark://", "names no Spark"),
        ("pyspark://yarn?warehouse=/w", "names no Spark"),
        ("pyspark://local[2", "names no Spark"),
        ("pyspark://local[abc]?warehouse=/w", "names no Spark"),
        ("pyspark://local[0]?warehouse=/w", "names no Spark"),
        ("pyspark://local[2,0]?warehouse=/w", "names no Spark"),
        ("pyspark://spark://host:port?warehouse=/w", "names no Spark"),
        ("pyspark://sc://host:443;token=secret?warehouse=/w", "names no Spark"),
        ("pyspark://sc://secret@host:443?warehouse=/w", "names no Spark"),
        ("pyspark://local[2]?warehouse=s3://bucket/w", "is no folder: name a path"),
        ("pyspark://sc://host:443/;token=secret", "names no folder"),
        ("pyspark://local[2]?warehouse=/w&memory=4g", "has the option 'memory'"),
        ("pyspark://local[2]?warehouse=/w&jars=/nowhere", "holds no jar of Iceberg for Spark 4.0"),
    ],
)
def test_another_url_is_refused_in_one_sentence_without_its_token(url, what):
    with pytest.raises(EngineError, match=what) as refused:
        SparkUrl.parse(url)
    assert "secret" not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["spark", "sc"])
def test_a_spark_that_does_not_answer_is_told_at_once_and_in_one_sentence(kind):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # bound, but not listening
        with pytest.raises(EngineError, match=f"no Spark answers at 127.0.0.1:{port}: start it") as refused:
            check_spark(f"pyspark://{kind}://127.0.0.1:{port}/;token=secret?warehouse=/w")
    assert "secret" not in str(refused.value)


@contextmanager
def server(answer: bytes) -> Iterator[str]:
    """Yield the address of a server that answers every connection so, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def test_one_of_several_masters_is_enough(tmp_path):
    stream_failure = struct.pack(">qbi", 8 + 1 + 4 + 4, 8, 0) + bytes(4)
    with server(stream_failure) as master:
        masters = f"spark://127.0.0.1:1,{master}"
        assert check_spark(f"pyspark://{masters}?warehouse={tmp_path}").master == masters


@pytest.mark.parametrize(
    ("master", "what"),
    [
        ("spark://{}", "is no master of Spark"),
        ("sc://{}", "is no server of Spark Connect without TLS; one with TLS needs use_ssl=true"),
        ("sc://{}/;token=secret", "is no server of Spark Connect with TLS, which the URL asks for"),
        ("sc://{}/path;token=secret", "is no URL of Spark Connect: write"),
    ],
)
def test_a_port_of_another_program_is_told_in_one_sentence(master, what, tmp_path, monkeypatch):
    monkeypatch.setattr(spark_url, "ANSWER_S", 1.0)
    with server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address, pytest.raises(EngineError, match=what) as refused:
        check_spark(f"pyspark://{master.format(address)}?warehouse={tmp_path}")
    assert "secret" not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("below", ["", "/staging"])
def test_a_file_is_no_folder_of_tables(below, tmp_path):
    (file := tmp_path / "100% tables").touch()
    for path in (f"{file}{below}", f"file://{file}{below}"):
        with pytest.raises(EngineError, match=r"leads through .*100% tables, which is a file: name a folder"):
            check_spark(f"pyspark://local[2]?{urlencode({'warehouse': path})}")
    assert check_spark(f"pyspark://local[2]?warehouse={tmp_path}/new/tables").folder == tmp_path / "new" / "tables"


def test_a_jar_of_another_spark_is_not_taken(tmp_path):
    (tmp_path / "iceberg-spark-runtime-3.5_2.12-1.10.0.jar").touch()
    with pytest.raises(EngineError, match=r"copy iceberg-spark-runtime-4\.0_2\.13-<version>\.jar into it"):
        SparkUrl.parse(f"pyspark://local[2]?warehouse=/w&jars={tmp_path}")
    (tmp_path / "iceberg-spark-runtime-4.0_2.13-1.10.1.jar").touch()
    assert SparkUrl.parse(f"pyspark://local[2]?warehouse=/w&jars={tmp_path}").jars == tmp_path


def test_the_tables_are_below_the_home_where_the_url_names_no_folder(tmp_path):
    settings = Settings(home=tmp_path, warehouse_url="pyspark://local[2]?spark.driver.memory=2g")
    assert SparkUrl.parse(settings.warehouse).warehouse == str(settings.root / "spark")
    settings = Settings(home=tmp_path, warehouse_url="pyspark://local[2]?warehouse=/shared")
    assert SparkUrl.parse(settings.warehouse).warehouse == "/shared"


def test_an_environment_without_spark_says_how_to_add_it(tmp_path):
    code = """
import sys
from importlib.machinery import PathFinder
class WithoutSpark(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "pyspark" else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutSpark
from finrisk_assets.engines.choice import open_engine
from finrisk_assets.engines.engine import EngineError
try:
    open_engine("pyspark://local[1]?warehouse=/nowhere")
except EngineError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "Spark is not installed: run `make spark`, which adds it to the environment\n", done.stderr


def test_a_machine_without_java_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(EngineError, match="needs a Java 17 runtime"):
        SparkEngine.open(f"pyspark://local[1]?warehouse={tmp_path}")
    monkeypatch.setenv("JAVA_HOME", "/nowhere/jdk")
    with pytest.raises(EngineError, match="JAVA_HOME='/nowhere/jdk' has no bin/java: set it to"):
        SparkEngine.open(f"pyspark://local[1]?warehouse={tmp_path}")
