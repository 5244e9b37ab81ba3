"""`finrisk console`: the console as a process of its own, so that looking never slows scoring.

Without `finrisk`: `python -m bento.cli.console_command`.
"""

import logging
import os
import socket
from typing import Any

import click

from finrisk_assets.settings import Settings, SettingsError

NICENESS = 10
"""By how much the console gives way to a service on the same machine."""


@click.command("console")
@click.option("--api", default="http://127.0.0.1:3000", show_default=True, help="Address of the service's API.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=3001, show_default=True, help="Port to listen on.")
@click.option("--ssl-certfile", help="Certificate for TLS; needed for another address than this machine's, unless a proxy ends TLS.")
@click.option("--ssl-keyfile", help="Private key of the certificate.")
def console(api: str, host: str, port: int, **tls: Any) -> None:
    """Serve the console, a view of the API: alerts, people, loans, models, policy and audit, at /console."""
    import uvicorn

    from bento.console.api_client import ApiClient
    from bento.console.console_app import build_console
    from bento.console.outside_links import OutsideLinks
    from bento.console.sign_in.oidc_client import OidcClient

    if not api.startswith(("http://", "https://")):
        raise click.BadParameter(f"{api!r} is no address; write it as http://127.0.0.1:3000", param_hint="--api")
    try:
        settings = Settings.from_environment()
        client = OidcClient.from_settings(settings)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=256)
    except OSError as error:
        raise click.ClickException(f"the console cannot listen on {host}, port {port}: {error.strerror}; choose another --port") from None
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    click.echo(f"The console: {'https' if tls.get('ssl_certfile') else 'http'}://{host}:{port}/console (API: {api}); Ctrl-C ends it")
    options = {name: value for name, value in tls.items() if value}
    os.nice(NICENESS)
    # No access log: its lines begin with the client's address. Proxies are believed as the service believes them.
    options |= {
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "forwarded_allow_ips": settings.trusted_proxies,
    }
    app = build_console(ApiClient(api), OutsideLinks.from_settings(settings), client)
    uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listener])


if __name__ == "__main__":
    console()
