"""Tests of the files in deploy/: their platforms accept them, and they agree with the service's settings, ports, user and routes.

`compose-spec.json` is the schema of the Compose Specification (github.com/compose-spec/compose-spec, commit 170098b, Apache License 2.0).
`cloud-run-v1.json` is the type Service of Cloud Run's API v1 with all types in it, without its status, as JSON Schema: from the discovery
document of 31 October 2026 in google-api-python-client 2.202.0 (Apache License 2.0).
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
DOCUMENTS = [
    document
    for name in ("finrisk.yaml", "upgrade/upgrade.yaml")
    for document in yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text(encoding="utf-8"))
]
MANIFESTS = {document["kind"]: document for document in reversed(DOCUMENTS)}
"""Kind -> the first manifest of the kind."""
POLICIES = [document for document in DOCUMENTS if document["kind"] == "NetworkPolicy"]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
CLOUD_RUN = yaml.safe_load((DEPLOY / "cloud-run" / "service.yaml").read_text(encoding="utf-8"))
KUSTOMIZATIONS = {
    folder: yaml.safe_load((DEPLOY / "kubernetes" / folder / "kustomization.yaml").read_text(encoding="utf-8"))
    for folder in ("", "upgrade", "image")
}
POD = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
REVISION = CLOUD_RUN["spec"]["template"]["spec"]
SERVICE, UPGRADE, EDGE, STREAM, TOPICS = (COMPOSE["services"][name] for name in ("service", "upgrade", "edge", "stream", "topics"))
ALONE = ["python", "-m", "bento.single_process"]


def environment(container):
    return {one["name"]: one["value"] for one in container["env"]}


ENVIRONMENTS = {
    "compose": SERVICE["environment"],
    "kubernetes": environment(POD["containers"][0]),
    "cloud run": environment(REVISION["containers"][0]),
}


# What the platforms take.


@pytest.mark.parametrize("manifest", DOCUMENTS, ids=lambda manifest: f"{manifest['kind']} {manifest['metadata']['name']}")
def test_kubernetes_takes_each_manifest(manifest):
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_a_manifest_with_a_slip_would_be_refused():
    wrong = json.loads(json.dumps(MANIFESTS["Deployment"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_cloud_run_takes_the_service():
    schema = json.loads((Path(__file__).parent / "cloud-run-v1.json").read_text(encoding="utf-8"))

    assert (CLOUD_RUN["apiVersion"], CLOUD_RUN["kind"]) == ("serving.knative.dev/v1", "Service")
    jsonschema.Draft7Validator(schema).validate(CLOUD_RUN)
    pod = {name: value for name, value in REVISION.items() if name not in ("containerConcurrency", "timeoutSeconds")}
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "finrisk"}, "spec": pod}, KUBERNETES, strict=True)
    assert "securityContext" not in pod["containers"][0], "Cloud Run refuses it"
    wrong = json.loads(json.dumps(CLOUD_RUN))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate(wrong)


def test_cloud_run_keeps_an_instance_and_bounds_their_number():
    annotations = CLOUD_RUN["spec"]["template"]["metadata"]["annotations"]
    scale = {name: int(annotations[f"autoscaling.knative.dev/{name}Scale"]) for name in ("min", "max")}

    assert 1 <= scale["min"] < scale["max"]
    assert REVISION["serviceAccountName"].startswith("finrisk@"), "never the project's default account, which may do nearly everything"


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

    needed = {f"{PREFIX}MASTER_KEY", f"{PREFIX}STORE_URL"}
    assert needed < secret, "the console's secret is not needed: what is deployed has no console"
    assert not secret & ENVIRONMENTS[where].keys()
    assert {f"{name}_FILE" for name in needed} <= ENVIRONMENTS[where].keys()


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
    assert EDGE["ports"] == ["127.0.0.1:3000:3000", "127.0.0.1:3001:3001"]
    assert REVISION["containers"][0]["ports"][0]["containerPort"] == 3000, "Cloud Run sets PORT to it, which the image's entry point heeds"
    assert ["service:3000"] in [job["targets"] for job in scraped()["static_configs"]]


def test_the_streams_worker_shares_the_services_store():
    settings = Settings.from_environment({name: value for name, value in STREAM["environment"].items() if not name.endswith("_FILE")})

    assert STREAM["command"] == ["python", "-m", "bento.cli.streaming"] == TOPICS["command"][:3]
    assert STREAM["secrets"] == SERVICE["secrets"]
    assert {name: value for name, value in STREAM["environment"].items() if name.endswith("_FILE")} == {
        name: value for name, value in SERVICE["environment"].items() if name.endswith("_FILE")
    }
    assert settings.kafka == TOPICS["environment"]["FINRISK_KAFKA"] == "kafka:9092"
    assert f"127.0.0.1:{settings.stream_port}/readyz" in STREAM["healthcheck"]["test"][-1]
    assert COMPOSE["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{settings.kafka}"


@pytest.mark.parametrize("container", [POD["containers"][0], REVISION["containers"][0]], ids=["kubernetes", "cloud run"])
def test_probes_ask_routes_that_need_no_key(container):
    open_to_all = {route.path for route in ROUTES if route.roles is OPEN and route.method == "GET"}
    probes = {name: probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")}

    assert set(probes.values()) <= open_to_all
    assert probes["livenessProbe"] == "/livez", "a store that cannot be reached is no reason to start anew"
    assert probes["startupProbe"] == probes["readinessProbe"] == "/readyz"


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
        assert "healthcheck" in service or name in ("grafana", "upgrade", "topics"), name
    assert not SERVICE.get("cap_add")


def test_nothing_of_compose_but_the_edge_has_a_way_out():
    assert COMPOSE["networks"] == {"front": {}, "back": {"internal": True}}
    for name, service in COMPOSE["services"].items():
        assert service["networks"] == (["front", "back"] if name == "edge" else ["back"]), name
        assert name == "edge" or "ports" not in service, name
    assert not {"secrets", "environment"} & EDGE.keys(), "what others reach holds nothing"


def test_the_edge_passes_on_to_services_that_listen():
    config = (DEPLOY / "edge" / "nginx.conf").read_text(encoding="utf-8")
    passed = re.findall(r"listen (\d+);\s+set \$(\w+) (\w+):(\d+);\s+proxy_pass \$(\w+);", config)

    assert [(listen, name, port) for listen, variable, name, port, target in passed if variable == target] == [
        ("3000", "service", ENVIRONMENTS["compose"]["BENTOML_PORT"]),
        ("3001", "grafana", "3000"),
    ]
    assert EDGE["volumes"] == ["./edge/nginx.conf:/etc/nginx/nginx.conf:ro"]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy["metadata"]["name"])
def test_a_pod_reaches_names_and_its_database_alone(policy):
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    names, database = policy["spec"]["egress"]
    (dns,) = names["to"]

    assert dns["podSelector"] and dns["namespaceSelector"], "one place to ask, not every pod of a namespace"
    assert {port["port"] for port in names["ports"]} == {53}
    assert [target["ipBlock"]["cidr"].partition("/")[2] for target in database["to"]] == ["32"]
    assert [port["port"] for port in database["ports"]] == [5432]


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_every_pod_has_a_policy(kind):
    labels = MANIFESTS[kind]["spec"]["template"]["metadata"]["labels"]

    assert [policy["spec"]["podSelector"]["matchLabels"] for policy in POLICIES].count(labels) == 1


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
    assert UPGRADE["command"] == container["args"]
    assert "owner-store-url" in UPGRADE["secrets"]
    assert not {"owner-store-url", "owner-password", "postgres-password"} & set(SERVICE["secrets"])
    assert SERVICE["depends_on"]["upgrade"] == {"condition": "service_completed_successfully"}
    for names in ENVIRONMENTS.values():
        assert "FINRISK_STORE_UPGRADE" not in names


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
    roles = (DEPLOY / "postgres" / "roles.sh").read_text(encoding="utf-8").replace("$secrets/", "/run/secrets/")
    configured = json.dumps(COMPOSE["services"]) + roles + (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")

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
    assert made["service-password"] in made["store-url"]
    assert made["owner-password"] in made["owner-store-url"]
    passwords = [made[f"{role}-password"] for role in ("postgres", "owner", "service", "grafana")]
    assert len(set(passwords)) == 4 and min(map(len, passwords)) > 30
    assert make() == made, "what is there is left as it is"
    for file in (tmp_path / "secrets").iterdir():
        file.unlink()
    again = make()
    assert not {made["master.key"], *passwords} & set(again.values())


def test_the_made_master_key_is_one(tmp_path):
    from bento.store.keyring import Keyring

    script = tmp_path / "secrets.sh"
    script.write_bytes((DEPLOY / "secrets.sh").read_bytes())
    subprocess.run(["sh", script], check=True, capture_output=True)

    keyring = Keyring.of(Settings(master_key_file=tmp_path / "secrets" / "master.key"), make=False)
    assert len(keyring.masters) == 1


def test_no_secret_is_in_the_repository():
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    ignored = ("secrets", "__pycache__")  # of git: the second is there once a test has started a broker
    for file in (file for file in DEPLOY.rglob("*") if file.is_file() and file.parent.name not in ignored):
        text = re.sub(r" :'\w+'", "", file.read_text(encoding="utf-8"))  # a variable of psql
        assert not re.search(r"(?i)\b(password|passwd|secret_?key|token)\s*[:=]\s*[\"']?[A-Za-z0-9+/]{6,}", text), file
        assert "finrisk_" not in re.sub(r"finrisk_(assets|owner|service)\b", "", text) or file.suffix == ".json", file


def test_every_image_says_its_version_and_is_pinned_by_one_variable():
    images = {name: service["image"] for name, service in COMPOSE["services"].items()}
    assert len({images.pop(name) for name in ("service", "upgrade", "topics", "stream")}) == 1, "one variable for all"
    assert SERVICE["image"].startswith("${IMAGE:?"), "whoever starts it says which"

    defaults = {name: re.fullmatch(rf"\$\{{{name.upper()}_IMAGE:-(\S+)\}}", image) for name, image in images.items()}
    for image in [*(default[1] for default in defaults.values()), REVISION["containers"][0]["image"], Settings().base_image]:
        tag = image.rpartition("/")[2].partition(":")[2]
        assert re.match(r"v?\d+\.\d+|[0-9a-f]{12}$", tag), image


def test_kustomize_names_the_image_of_pods_and_upgrade_in_one_place():
    (image,) = KUSTOMIZATIONS["image"]["images"]
    names = {MANIFESTS[kind]["spec"]["template"]["spec"]["containers"][0]["image"] for kind in ("Deployment", "Job")}

    assert KUSTOMIZATIONS["image"]["kind"] == "Component"
    assert names == {image["name"]}
    assert image["newName"] and re.fullmatch("[0-9a-f]{12}", image["newTag"])
    for folder in ("", "upgrade"):
        kustomization, root = KUSTOMIZATIONS[folder], DEPLOY / "kubernetes" / folder
        assert [(root / component).resolve() for component in kustomization["components"]] == [DEPLOY / "kubernetes" / "image"]
        assert [file for file in kustomization["resources"] if not (root / file).is_file()] == []
        assert "images" not in kustomization


# Prometheus and Grafana.


def scraped(name="finrisk"):
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    return {job["job_name"]: job for job in jobs}[name]


def test_prometheus_asks_with_a_key():
    assert scraped()["metrics_path"] in {route.path for route in ROUTES}
    assert scraped()["authorization"]["credentials_file"] == "/run/secrets/prometheus-key"
    assert "prometheus-key" in COMPOSE["services"]["prometheus"]["secrets"]


def test_prometheus_asks_each_worker_of_the_stream():
    settings = Settings.from_environment({name: value for name, value in STREAM["environment"].items() if not name.endswith("_FILE")})
    (names,) = scraped("finrisk-stream")["dns_sd_configs"]

    assert scraped("finrisk-stream")["metrics_path"] == "/metrics"
    assert names["names"] == ["stream"] and names["type"] == "A"
    assert (settings.stream_host, settings.stream_port) == ("0.0.0.0", names["port"])


def test_grafana_finds_its_dashboard_and_its_source():
    provisioning = DEPLOY / "grafana" / "provisioning"
    provider = yaml.safe_load((provisioning / "dashboards" / "finrisk.yaml").read_text(encoding="utf-8"))["providers"][0]
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))["datasources"][0]
    mounted = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"])

    assert Path(mounted["./grafana/dashboard.json"]).parent == Path(provider["options"]["path"])
    assert (DEPLOY / "grafana" / "dashboard.json").is_file()
    assert source["url"] == "http://prometheus:9090"
    assert COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == mounted["./grafana/dashboard.json"]
