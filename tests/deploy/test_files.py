"""Tests of the files in deploy/: their platforms accept them, and they agree with the service's settings, ports, user and routes.

`compose-spec.json` is the schema of the Compose Specification (github.com/compose-spec/compose-spec, commit 170098b, Apache License 2.0).
"""

import json
import re
import stat
import subprocess
from dataclasses import fields
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from bentoml._internal.container.generate import BENTO_UID_GID

from bento.access.roles import OPEN, ROUTES
from finrisk_assets.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = "1.34"
MANIFESTS = {
    document["kind"]: document
    for name in ("finrisk", "upgrade")
    for document in yaml.safe_load_all((DEPLOY / "kubernetes" / f"{name}.yaml").read_text(encoding="utf-8"))
}
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
CLOUD_RUN = yaml.safe_load((DEPLOY / "cloud-run" / "service.yaml").read_text(encoding="utf-8"))
KUSTOMIZATION = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text(encoding="utf-8"))
POD = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
REVISION = CLOUD_RUN["spec"]["template"]["spec"]
SERVICE = COMPOSE["services"]["service"]
ALONE = ["python", "-m", "bento.single_process"]


def environment(container):
    return {one["name"]: one["value"] for one in container["env"]}


ENVIRONMENTS = {
    "compose": SERVICE["environment"],
    "kubernetes": environment(POD["containers"][0]),
    "cloud run": environment(REVISION["containers"][0]),
}


# What the platforms take.


@pytest.mark.parametrize("kind", MANIFESTS)
def test_kubernetes_takes_each_manifest(kind):
    kubernetes_validate.validate(MANIFESTS[kind], KUBERNETES, strict=True)


def test_a_manifest_with_a_slip_would_be_refused():
    wrong = json.loads(json.dumps(MANIFESTS["Deployment"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_cloud_run_takes_the_service():
    """Its revision is a pod with two words more and fewer fields; the schema of Knative is not published apart from a cluster."""
    assert (CLOUD_RUN["apiVersion"], CLOUD_RUN["kind"]) == ("serving.knative.dev/v1", "Service")
    pod = {name: value for name, value in REVISION.items() if name not in ("containerConcurrency", "timeoutSeconds")}
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "finrisk"}, "spec": pod}, KUBERNETES, strict=True)
    assert set(pod) <= {"serviceAccountName", "containers", "volumes"}
    assert "securityContext" not in pod["containers"][0], "Cloud Run refuses it"


def test_compose_takes_the_file():
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text(encoding="utf-8"))

    jsonschema.Draft7Validator(schema).validate(COMPOSE)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate({**COMPOSE, "services": {"service": {"imag": "finrisk"}}})


# What the service is.


@pytest.mark.parametrize("where", ENVIRONMENTS)
def test_every_setting_is_one_and_can_be_read(where, tmp_path):
    names = {name: value for name, value in ENVIRONMENTS[where].items() if name.startswith(PREFIX)}
    for name in (name for name in names if name.endswith("_FILE")):
        names[name] = str(tmp_path / name)
        Path(names[name]).write_text("postgresql+pg8000://finrisk@postgres/finrisk", encoding="utf-8")

    settings = Settings.from_environment(names)

    assert settings.store_url.startswith("postgresql+pg8000://")
    assert settings.master_key_file == Path(names["FINRISK_MASTER_KEY_FILE"])


@pytest.mark.parametrize("where", ENVIRONMENTS)
def test_no_secret_stands_in_the_environment(where):
    secret = {f"{PREFIX}{field.name.upper()}" for field in fields(Settings) if not field.repr}

    assert len(secret) >= 2
    assert not secret & ENVIRONMENTS[where].keys()
    assert {f"{name}_FILE" for name in secret} <= ENVIRONMENTS[where].keys()


def test_the_command_is_there():
    assert (ROOT / "bento" / "single_process.py").is_file()
    assert SERVICE["command"] == POD["containers"][0]["args"] == REVISION["containers"][0]["args"] == ALONE


def test_ports_agree():
    port = POD["containers"][0]["ports"][0]
    service = MANIFESTS["Service"]["spec"]["ports"][0]
    policy = MANIFESTS["NetworkPolicy"]["spec"]["ingress"][0]["ports"]

    assert ENVIRONMENTS["kubernetes"]["BENTOML_PORT"] == ENVIRONMENTS["compose"]["BENTOML_PORT"] == str(port["containerPort"]) == "3000"
    assert service["targetPort"] == port["name"]
    assert [one["port"] for one in policy] == [port["containerPort"]]
    assert SERVICE["ports"] == ["127.0.0.1:3000:3000"]
    assert REVISION["containers"][0]["ports"][0]["containerPort"] == 3000, "Cloud Run sets PORT to it, which the image's entry point heeds"
    assert ["service:3000"] in [job["targets"] for job in scraped()["static_configs"]]


@pytest.mark.parametrize("container", [POD["containers"][0], REVISION["containers"][0]], ids=["kubernetes", "cloud run"])
def test_probes_ask_routes_that_need_no_key(container):
    open_to_all = {route.path for route in ROUTES if route.roles is OPEN and route.method == "GET"}
    probes = {name: probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")}

    assert set(probes.values()) <= open_to_all
    assert probes["livenessProbe"] == "/livez", "a store that cannot be reached is no reason to start anew"
    assert probes["startupProbe"] == "/readyz"


def test_the_time_to_end_is_longer_than_the_drain():
    longest_request_s = 5
    drains = {where: float(names["FINRISK_DRAIN_SECONDS"]) + longest_request_s for where, names in ENVIRONMENTS.items()}

    assert drains["kubernetes"] < POD["terminationGracePeriodSeconds"]
    assert drains["compose"] < float(SERVICE["stop_grace_period"].rstrip("s"))
    assert drains["cloud run"] < 10


# How little it may do.


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_a_pod_may_do_little(kind):
    pod = MANIFESTS[kind]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    outside, inside = pod["securityContext"], container["securityContext"]

    assert outside["runAsNonRoot"] is True
    assert outside["runAsUser"] == outside["runAsGroup"] == outside["fsGroup"] == BENTO_UID_GID
    assert outside["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inside == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert "memory" in container["resources"]["limits"]


def test_what_compose_runs_may_do_little():
    for name, service in COMPOSE["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True or name == "kafka", name
        assert not {"privileged", "network_mode", "pid"} & service.keys(), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert "healthcheck" in service or name == "grafana", name
    assert not SERVICE.get("cap_add")
    assert COMPOSE["networks"]["back"] == {"internal": True}


def test_pods_are_selected_by_their_own_labels():
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]

    assert MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["Service"]["spec"]["selector"] == labels
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["minAvailable"] < MANIFESTS["Deployment"]["spec"]["replicas"]


def test_the_store_is_upgraded_by_a_role_that_the_service_has_not():
    (container,) = MANIFESTS["Job"]["spec"]["template"]["spec"]["containers"]

    assert container["args"] == ["python", "-m", "bento.store.migrations", "upgrade"]
    assert secrets_of(MANIFESTS["Job"]) == {"finrisk-owner"}
    assert secrets_of(MANIFESTS["Deployment"]) == {"finrisk"}
    assert "FINRISK_STORE_UPGRADE" not in ENVIRONMENTS["kubernetes"].keys() | ENVIRONMENTS["cloud run"].keys()


def secrets_of(manifest):
    return {volume["secret"]["secretName"] for volume in manifest["spec"]["template"]["spec"]["volumes"] if "secret" in volume}


# Secrets and images.


@pytest.mark.parametrize(
    ("container", "pod", "environ"),
    [(POD["containers"][0], POD, ENVIRONMENTS["kubernetes"]), (REVISION["containers"][0], REVISION, ENVIRONMENTS["cloud run"])],
    ids=["kubernetes", "cloud run"],
)
def test_every_file_that_a_setting_names_is_mounted_and_every_mount_is_of_a_volume(container, pod, environ):
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    files = {
        f"{mount['mountPath']}/{item['path']}"
        for mount in container["volumeMounts"]
        for item in volumes[mount["name"]].get("secret", {}).get("items", ())
    }

    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    assert {value for name, value in environ.items() if name.endswith("_FILE")} == files


def test_every_secret_of_compose_is_made_given_and_used():
    names = {name for service in COMPOSE["services"].values() for name in service.get("secrets", ())}
    script = (DEPLOY / "secrets.sh").read_text(encoding="utf-8")
    configured = json.dumps(COMPOSE["services"]) + (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")

    assert names == COMPOSE["secrets"].keys()
    for name in names:
        assert COMPOSE["secrets"][name] == {"file": f"./secrets/{name}"}
        assert name in script
        assert f"/run/secrets/{name}" in configured


def test_secrets_are_made_at_random_and_for_their_owner_alone(tmp_path):
    script = tmp_path / "secrets.sh"
    script.write_bytes((DEPLOY / "secrets.sh").read_bytes())

    def make():
        subprocess.run(["sh", script], check=True, capture_output=True)
        return {file.name: file.read_text(encoding="utf-8") for file in (tmp_path / "secrets").iterdir()}

    made = make()
    assert made.keys() == COMPOSE["secrets"].keys()
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert made["postgres-password"] in made["store-url"]
    assert len(made["postgres-password"]) > 30
    assert make() == made, "what is there is left as it is"
    for file in (tmp_path / "secrets").iterdir():
        file.unlink()
    again = make()
    assert not {made[name] for name in ("master.key", "postgres-password", "grafana-password")} & set(again.values())


def test_the_made_master_key_is_one(tmp_path):
    from bento.store.keyring import Keyring

    script = tmp_path / "secrets.sh"
    script.write_bytes((DEPLOY / "secrets.sh").read_bytes())
    subprocess.run(["sh", script], check=True, capture_output=True)

    keyring = Keyring.of(Settings(master_key_file=tmp_path / "secrets" / "master.key"), make=False)
    assert len(keyring.masters) == 1


def test_no_secret_is_in_the_repository():
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for file in (file for file in DEPLOY.rglob("*") if file.is_file() and file.parent.name != "secrets"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"(?i)\b(password|passwd|secret_?key|token)\s*[:=]\s*[\"']?[A-Za-z0-9+/]{6,}", text), file
        assert "finrisk_" not in re.sub(r"finrisk_assets", "", text) or file.suffix == ".json", file


def test_every_image_says_its_version():
    images = {name: service["image"] for name, service in COMPOSE["services"].items()}
    mine = images.pop("service")

    assert mine.startswith("${IMAGE:?"), "whoever starts it says which"
    upgrade = MANIFESTS["Job"]["spec"]["template"]["spec"]["containers"][0]["image"]
    for image in [*images.values(), REVISION["containers"][0]["image"], upgrade]:
        tag = image.rpartition("/")[2].partition(":")[2]
        assert re.match(r"v?\d+\.\d+|[0-9a-f]{12}$", tag), image
    assert KUSTOMIZATION["images"][0]["name"] == POD["containers"][0]["image"]
    assert upgrade == "{newName}:{newTag}".format(**KUSTOMIZATION["images"][0])
    assert [file for file in KUSTOMIZATION["resources"] if not (DEPLOY / "kubernetes" / file).is_file()] == []


# Prometheus and Grafana.


def scraped():
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    return job


def test_prometheus_asks_with_a_key():
    assert scraped()["metrics_path"] in {route.path for route in ROUTES}
    assert scraped()["authorization"]["credentials_file"] == "/run/secrets/prometheus-key"
    assert "prometheus-key" in COMPOSE["services"]["prometheus"]["secrets"]


def test_grafana_finds_its_dashboard_and_its_source():
    provisioning = DEPLOY / "grafana" / "provisioning"
    provider = yaml.safe_load((provisioning / "dashboards" / "finrisk.yaml").read_text(encoding="utf-8"))["providers"][0]
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))["datasources"][0]
    mounted = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"])

    assert Path(mounted["./grafana/dashboard.json"]).parent == Path(provider["options"]["path"])
    assert (DEPLOY / "grafana" / "dashboard.json").is_file()
    assert source["url"] == "http://prometheus:9090"
    assert COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == mounted["./grafana/dashboard.json"]
