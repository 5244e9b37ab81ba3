"""Tests of deploy/dagster: Dagster and Kubernetes take the files, and they agree with the code.

The chart's templates are not at hand: what they make of the values is checked by the configuration that the values stand for.
"""

import importlib.util
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import dagster as dg
import kubernetes_validate
import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config, dagster_instance_config_schema, validate_concurrency_config
from dagster_k8s import K8sRunLauncher
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import make_url

from finrisk_assets.graph.build import build_definitions
from finrisk_assets.graph.runs import dagster_home
from finrisk_assets.settings import PREFIX, Settings
from tests.deploy.test_files import BENTO_UID_GID, KUBERNETES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "dagster"
INSTANCE = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
VALUES = yaml.safe_load((DEPLOY / "values.yaml").read_text(encoding="utf-8"))
(LOCATION,) = VALUES["dagster-user-deployments"]["deployments"]
CONTAINERFILE = (DEPLOY / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SNAKE = re.compile("(?<=[a-z0-9])([A-Z])")


def snake(value):
    """Return a configuration with the names that Dagster gives them: the chart's are the same in camel case."""
    if isinstance(value, dict):
        return {SNAKE.sub(lambda match: f"_{match[1].lower()}", name): snake(inner) for name, inner in value.items()}
    return [snake(one) for one in value] if isinstance(value, list) else value


# The instance on PostgreSQL.


def test_dagster_takes_the_instance(monkeypatch):
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql+psycopg2://dagster@db.example/dagster")
    config, _ = dagster_instance_config(str(DEPLOY))

    assert config["storage"] == {"postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}}
    wrong = {"config": INSTANCE | {"run_monitoring": {"poll_intervall": 15}}}
    assert not process_config(dagster_instance_config_schema(), wrong["config"]).success


def test_the_instance_has_every_part_of_a_homes():
    assert list(dagster_home.find_additions(INSTANCE, yaml.safe_load(dagster_home.DAGSTER_YAML))) == []


def test_the_page_states_the_numbers_of_the_instance():
    page = " ".join((ROOT / "docs" / "orchestration.md").read_text(encoding="utf-8").split())
    runs, (backfill,) = INSTANCE["concurrency"]["runs"], INSTANCE["concurrency"]["runs"]["tag_concurrency_limits"]
    assert f"At most {runs['max_concurrent_runs']} runs at a time, {backfill['limit']} of a backfill." in page
    assert INSTANCE["concurrency"]["pools"] == {"granularity": "run", "default_limit": 1} and "One run at a time in the pool" in page
    assert INSTANCE["run_monitoring"]["start_timeout_seconds"] == INSTANCE["run_monitoring"]["cancel_timeout_seconds"] == 180
    assert "has not started within three minutes, or that does not stop within three" in page
    days = {day for ticks in INSTANCE["retention"].values() for day in ticks["purge_after_days"].values()}
    assert f"are kept for {min(days)} to {max(days)} days" in page


def test_a_url_without_a_driver_is_read_by_psycopg_3():
    """Dagster's library does not know the driver: the page and the file say that the URL names it."""
    assert make_url("postgresql://db.example/dagster").get_dialect().driver == "psycopg"


# Two code locations.


def test_the_other_teams_assets_stand_on_an_asset_of_the_graph(tmp_path):
    here, there = (entry.popitem()[1] for entry in yaml.safe_load((DEPLOY / "workspace.yaml").read_text(encoding="utf-8"))["load_from"])
    spec = importlib.util.spec_from_file_location("branch_reports", DEPLOY / there["relative_path"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    graph = build_definitions(Settings(home=tmp_path)).resolve_asset_graph()
    assert here["module_name"] == here["location_name"] == "finrisk_assets.definitions", "the demonstration's runs are of this location"
    assert module.MARTS in graph.get_all_asset_keys()
    assert module.MARTS in module.defs.resolve_asset_graph().external_asset_keys


def test_the_other_teams_table_counts_the_export(tmp_path, monkeypatch):
    monkeypatch.setenv("BRANCH_REPORTS_MARTS", str(tmp_path))
    (tmp_path / "scores.csv").write_text(
        "domain,subject_id,decision\nloan_default,1,approve\nloan_default,2,approve\nloan_default,3,refuse\n"
    )
    spec = importlib.util.spec_from_file_location("branch_reports", DEPLOY / "branch_reports.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    result = dg.materialize([module.decisions_by_domain])
    (made,) = result.asset_materializations_for_node("decisions_by_domain")
    assert "| loan_default | approve | 2 |" in made.metadata["decisions"].value


# Kubernetes.


def rendered_launcher():
    """Return the run launcher's configuration as the chart's template makes it of the values."""
    given = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    raw = {snake({name: None}).popitem()[0]: config for name, config in given["runK8sConfig"].items()}
    return snake({name: value for name, value in given.items() if name != "runK8sConfig"}) | {
        "run_k8s_config": raw,
        "job_namespace": "finrisk",
        "service_account_name": "dagster",
        "dagster_home": "/opt/dagster/dagster_home",
        "instance_config_map": "dagster-instance",
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
    }


def test_the_launcher_of_kubernetes_takes_its_configuration():
    schema = K8sRunLauncher.config_type()

    assert VALUES["runLauncher"]["type"] == "K8sRunLauncher"
    assert process_config(schema, rendered_launcher()).success
    assert not process_config(schema, rendered_launcher() | {"load_cluster_config": True}).success


def test_dagster_takes_what_the_values_say_of_the_instance(monkeypatch):
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "a secret of the cluster")
    daemon = {name: VALUES["dagsterDaemon"][name] for name in ("runMonitoring", "runRetries")}
    concurrency = {name: VALUES["concurrency"][name] for name in ("pools", "runs")}
    server = {"hostname": VALUES["postgresql"]["postgresqlHost"], "db_name": VALUES["postgresql"]["postgresqlDatabase"]}
    server |= {"username": VALUES["postgresql"]["postgresqlUsername"], "password": {"env": "DAGSTER_PG_PASSWORD"}}
    server |= {"params": VALUES["postgresql"]["postgresqlParams"], "scheme": VALUES["postgresql"]["postgresqlScheme"]}
    retention = {name: VALUES["retention"][name] for name in ("schedule", "sensor", "autoMaterialize")}
    config = snake(daemon | {"concurrency": concurrency, "retention": retention}) | VALUES["additionalInstanceConfig"]

    checked = process_config(dagster_instance_config_schema(), config)
    assert checked.success, checked.errors
    validate_concurrency_config(config)
    assert process_config(DagsterPostgresStorage.config_type(), {"postgres_db": server}).success
    assert config["concurrency"] == INSTANCE["concurrency"]
    assert config["retention"] == INSTANCE["retention"]


def test_kubernetes_takes_the_pods():
    """The code location and a run, whose pod has the location's variables and volumes, and the launcher's own configuration."""
    container = {name: LOCATION[name] for name in ("env", "resources", "securityContext", "volumeMounts")}
    container |= {"name": "dagster", "image": "{repository}:{tag}".format(**LOCATION["image"]), "args": LOCATION["dagsterApiGrpcArgs"]}
    raw = VALUES["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    pod = {"securityContext": LOCATION["podSecurityContext"], "volumes": LOCATION["volumes"], "containers": [container]}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "run"},
        "spec": {"template": {"spec": pod | {"restartPolicy": "Never"} | raw["podSpecConfig"]}} | raw["jobSpecConfig"],
    }

    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    for name in ("dagsterDaemon", "dagsterWebserver"):
        assert VALUES[name]["podSecurityContext"] == LOCATION["podSecurityContext"]
        assert VALUES[name]["securityContext"] == LOCATION["securityContext"]
        assert "memory" in VALUES[name]["resources"]["limits"]
    assert LOCATION["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert LOCATION["includeConfigInLaunchedRuns"] == {"enabled": True}


def test_every_setting_of_the_pods_can_be_read_and_no_secret_stands_in_one(tmp_path):
    environ = {one["name"]: one["value"] for one in LOCATION["env"]}
    files = {name: value for name, value in environ.items() if name.endswith("_FILE")}
    (volume,) = (volume["secret"] for volume in LOCATION["volumes"] if "secret" in volume)
    mounts = {mount["name"]: mount["mountPath"] for mount in LOCATION["volumeMounts"]}

    assert set(files.values()) == {f"{mounts['secrets']}/{item['path']}" for item in volume["items"]}
    assert environ["FINRISK_HOME"] == mounts["home"]
    for name in files:
        environ[name] = str(tmp_path / name)
        Path(environ[name]).write_text("postgres://finrisk@db.example/risk", encoding="utf-8")
        Path(environ[name]).chmod(0o600)
    settings = Settings.from_environment({name: value for name, value in environ.items() if name.startswith(PREFIX)})
    assert settings.tracking_uri == "postgresql+psycopg://finrisk@db.example/risk"
    assert settings.tracking_artifacts == "s3://bucket/mlflow/simulator"
    assert VALUES["generatePostgresqlPasswordSecret"] is False and "postgresqlPassword" not in VALUES["postgresql"]


# The image of the code location.


def test_the_image_has_what_the_graph_needs_and_runs_as_the_pods_user():
    words = shlex.split(re.search(r"uv sync ([^&\n]+)", CONTAINERFILE)[1])
    extras = [words[at + 1] for at, word in enumerate(words) if word == "--extra"]
    command = re.search(r"^CMD (\[.*\])$", CONTAINERFILE, re.MULTILINE)[1]

    assert set(extras) == {"postgres", "kubernetes", "objects"} <= PROJECT["project"]["optional-dependencies"].keys()
    assert "--locked" in words and words[words.index("--no-group") + 1] == "dev"
    assert re.findall(r"^FROM (\S+)", CONTAINERFILE, re.MULTILINE) == [Settings().base_image] * 2
    assert f"USER {BENTO_UID_GID}" in CONTAINERFILE and LOCATION["podSecurityContext"]["runAsUser"] == BENTO_UID_GID
    assert str(LOCATION["port"]) in yaml.safe_load(command) and LOCATION["dagsterApiGrpcArgs"] == yaml.safe_load(command)[-2:]


def test_the_image_has_the_files_of_a_bento():
    copied = [word.split() for word in re.findall(r"^COPY (?!--from)(.+)$", CONTAINERFILE, re.MULTILINE)]
    sources = {source for *names, _ in copied for source in names}
    included = yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))["include"]

    assert all((ROOT / source).exists() for source in sources)
    for pattern in included:
        path = pattern.lstrip("/")
        assert any(path == source or fnmatch(path, f"{source}/*") for source in sources), pattern


@pytest.mark.parametrize("extra", ["postgres", "kubernetes"])
def test_every_package_of_an_extra_is_one_that_the_tests_use(extra):
    """Otherwise what is installed on another machine is not what was tested here."""
    packages = PROJECT["project"]["optional-dependencies"][extra]
    assert set(packages) <= set(PROJECT["dependency-groups"]["dev"])
