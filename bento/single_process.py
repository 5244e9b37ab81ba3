"""`python -m bento.single_process`: the service as one process, the command of its container.

`bentoml serve` starts two processes: a supervisor imports the whole service to start a worker, which imports it again, and the supervisor
ends when its only worker dies. Kubernetes, Cloud Run and Docker are supervisors already: without a second one the service is ready in half
the time and uses a third less memory. More workers are more containers. The application is BentoML's own, so all answers are the same.
"""

import gc
import logging.config
import os
import signal
import socket
import sys
import tempfile
from typing import Any

import click
import yaml

from bento.web.server_log import LOGGING
from finrisk_assets.settings import SettingsError


@click.command()
@click.option("--host", envvar="BENTOML_HOST", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", envvar="BENTOML_PORT", default=3000, show_default=True, help="Port to listen on.")
@click.option("--ssl-certfile", envvar="BENTOML_SSL_CERTFILE", help="Certificate for TLS; without it there is no TLS.")
@click.option("--ssl-keyfile", envvar="BENTOML_SSL_KEYFILE", help="Private key of the certificate.")
@click.option("--ssl-ca-certs", envvar="BENTOML_SSL_CA_CERTS", help="Certificate authorities of clients.")
@click.option("--ssl-cert-reqs", envvar="BENTOML_SSL_CERT_REQS", default=0, help="2 requires a certificate of every client.")
def main(host: str, port: int, **tls: Any) -> None:
    """Serve the Bento at BENTO_PATH, or the one of this folder, in one process."""
    # Objects created at the start live as long as the process. The service enables the collector once it is ready.
    gc.disable()

    import uvicorn
    from bentoml.exceptions import BentoMLException

    # The kernel sends a container's first process only signals that it handles. The server's own handler calls this one at its end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # `bentoml serve` sets this folder too: every process writes its counts below it, and `/metrics` adds them up.
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="finrisk-metrics-"))
    logging.config.dictConfig(LOGGING)
    parse_yaml_in_c()
    try:
        app = build_app(os.environ.get("BENTO_PATH", "."))
    # A missing Bento, missing or rejected models, an address without credentials, a setting: the message says what to do.
    except (BentoMLException, SettingsError) as error:
        raise click.ClickException(str(error)) from None
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
    except OSError as error:
        raise click.ClickException(f"the service cannot listen on {host}, port {port}: {error.strerror}; choose another") from None
    options = {name: value for name, value in tls.items() if value}
    uvicorn.Server(uvicorn.Config(app, log_config=None, server_header=False, **options)).run(sockets=[listener])


def build_app(bento: str) -> Any:
    """Return the ASGI application of a Bento, with its models checked once, in this process."""
    import bentoml

    service = bentoml.load(bento, standalone_load=True)
    for setting in service.envs:
        os.environ.setdefault(setting.name, setting.value)
    service.inject_config()
    service.inner.prepare(is_worker=True)
    return service.to_asgi()


def parse_yaml_in_c() -> None:
    """Make `yaml.safe_load` parse in C where possible: BentoML's manifests and configuration load a fifth of a second faster."""
    yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # type: ignore[misc]


if __name__ == "__main__":
    main()
