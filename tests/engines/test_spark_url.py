"""Tests of the URL of a warehouse on Spark: its forms, and one sentence for each other one."""

import socket
import subprocess
import sys

import pytest

from finrisk_assets.engines.engine import EngineError
from finrisk_assets.engines.spark_engine import SparkEngine
from finrisk_assets.engines.spark_url import SparkUrl, check_spark
from finrisk_assets.settings import Settings


@pytest.mark.parametrize("master", ["local", "local[2]", "local[*]", "spark://host:7077", "sc://host:15002", "sc://host:443/;token=secret"])
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
        ("pyspark://sc://host:443/;token=secret", "names no folder"),
        ("pyspark://local[2]?warehouse=/w&memory=4g", "has the option 'memory'"),
        ("pyspark://local[2]?warehouse=/w&jars=/nowhere", "holds no jar"),
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


def test_one_of_several_masters_is_enough():
    with socket.create_server(("127.0.0.1", 0)) as master:
        masters = f"spark://127.0.0.1:1,127.0.0.1:{master.getsockname()[1]}"
        assert check_spark(f"pyspark://{masters}?warehouse=/w").master == masters


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
