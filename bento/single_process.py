"""`python -m bento.single_process`: the service as one process, the command of its container.

`bentoml serve` starts two processes: a supervisor imports the whole service to start a worker, which imports it again, and the supervisor
ends when its only worker dies. Kubernetes, Cloud Run and Docker are supervisors already: without a second one the service is ready in half
the time and uses a third less memory. More workers are more containers. The worker is BentoML's own, so all answers are the same.
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
@click.option("--ssl-keyfile", envvar="BENTOML_SSL_KEYFILE", default="", help="Private key of the certificate.")
@click.option("--ssl-ca-certs", envvar="BENTOML_SSL_CA_CERTS", default="", help="Certificate authorities of clients.")
@click.option("--ssl-cert-reqs", envvar="BENTOML_SSL_CERT_REQS", default="", help="2 requires a certificate of every client.")
def main(host: str, port: int, **tls: str) -> None:
    """Serve the Bento at BENTO_PATH, or the one of this folder, in one process."""
    # Objects created at the start live as long as the process. The service enables the collector once it is ready.
    gc.disable()

    from _bentoml_impl.loader import load
    from _bentoml_impl.worker.service import main as run_worker

    # The kernel sends a container's first process only signals that it handles. The server's own handler calls this handler last.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # `bentoml serve` sets this folder too: every process writes its counts below it, and `/metrics` adds them up.
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="finrisk-metrics-"))
    parse_yaml_in_c()
    service = load(os.environ.get("BENTO_PATH", "."), standalone_load=True)
    for setting in service.envs:
        os.environ.setdefault(setting.name, setting.value)
    service.inject_config()
    service.inner.prepare(is_worker=True)
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
    tls_options = [word for name, value in tls.items() if value for word in ("--" + name.replace("_", "-"), value)]
    # The import string names the service that is already imported; with the Bento's path the worker would read the manifests again.
    run_worker([service.import_string, "--fd", str(listener.detach()), "--service-name", service.name, "--worker-id", "1", *tls_options])


def parse_yaml_in_c() -> None:
    """Make `yaml.safe_load` parse in C where possible: BentoML's manifests and configuration load a fifth of a second faster."""
    yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # type: ignore[misc]


if __name__ == "__main__":
    main()
