"""`python -m bento.single_process`: the service as one process.

It is what a container runs, where something else starts it again when it dies.

`bentoml serve` is two processes: a supervisor imports the whole service in order to start a worker, which imports it again, and where the
only worker dies, the supervisor ends too. Under Kubernetes, Cloud Run or Docker that is one supervisor too many: without it the service is
ready in half the time and holds a third less memory. For more workers there are more containers. The worker itself is BentoML's own, so
nothing that it answers differs.
"""

import gc
import os
import signal
import socket
import sys
import tempfile

import click
import yaml


@click.command()
@click.option("--host", envvar="BENTOML_HOST", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", envvar="BENTOML_PORT", default=3000, show_default=True, help="Port to listen on.")
@click.option("--ssl-certfile", envvar="BENTOML_SSL_CERTFILE", default="", help="Certificate for TLS; without it there is no TLS.")
@click.option("--ssl-keyfile", envvar="BENTOML_SSL_KEYFILE", default="", help="Its key.")
@click.option("--ssl-ca-certs", envvar="BENTOML_SSL_CA_CERTS", default="", help="Who may vouch for clients.")
@click.option("--ssl-cert-reqs", envvar="BENTOML_SSL_CERT_REQS", default="", help="2 where every client needs a certificate.")
def main(host: str, port: int, **tls: str) -> None:
    """Serve the Bento at BENTO_PATH, or the one of this folder, in one process."""
    # What a start makes, stays. The service switches the collector on again once it is ready.
    gc.disable()

    from _bentoml_impl.loader import load
    from _bentoml_impl.worker.service import main as worker

    # The first process of a container is sent no signal that it does not handle. The server's own handler, once there is one, ends in this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # As `bentoml serve` does: every process that counts writes below this folder, and `/metrics` adds up what is there.
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="finrisk-metrics-"))
    parse_yaml_in_c()
    service = load(os.environ.get("BENTO_PATH", "."), standalone_load=True)
    for setting in service.envs:
        os.environ.setdefault(setting.name, setting.value)
    service.inject_config()
    service.inner.prepare(keeps=True)
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
    told = [word for name, value in tls.items() if value for word in ("--" + name.replace("_", "-"), value)]
    # By its name in the code, under which it is at hand: by the Bento's path the worker would read the manifests again.
    worker([service.import_string, "--fd", str(listening.detach()), "--service-name", service.name, "--worker-id", "1", *told])


def parse_yaml_in_c() -> None:
    """Let `yaml.safe_load`, by which BentoML reads its manifests and its configuration, parse in C where it can: a fifth of a second."""
    yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # type: ignore[misc]


if __name__ == "__main__":
    main()
