"""A container image of a Bento without Docker and without a registry: Debian's packages make the base, `bentoml containerize` the rest.

Where Docker and a registry are at hand none of this is needed (docs/deployment.md). Here is only how the image is made; what it must
be like stands in tests/container. Run it as root, with BENTOML_HOME set:

    python deploy/container/build.py finrisk:latest localhost/finrisk:latest
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("buildah", "podman", "runc", "debootstrap")
PACKAGES = ("buildah", "podman", "runc", "crun", "debootstrap", "fuse-overlayfs", "debian-archive-keyring")
"""Debian's packages that bring the programs."""
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
BASE = f"localhost/finrisk-base:{SUITE}-with-licences"
_CONTENTS = ("python3", "ca-certificates")
_LEFT_OUT = (
    *("./usr/share/man/*", "./usr/share/info/*", "./usr/share/locale/*", "./usr/share/bash-completion/*", "./usr/share/lintian/*"),
    *("./var/cache/apt/*", "./var/lib/apt/lists/*", "./var/log/*", "./dev/*", "./proc/*", "./sys/*"),
)
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_INDEX = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX", "UV_INSECURE_HOST", "UV_NO_INDEX", "UV_NATIVE_TLS", "UV_HTTP_TIMEOUT")
"""Beginnings of the settings of uv that say where packages come from."""


class BuildError(RuntimeError):
    """An image that could not be built, with the reason."""


def missing() -> list[str]:
    """What this machine lacks for building and running an image, in words; nothing if all is there."""
    lacking = [f"the program {name}" for name in PROGRAMS if shutil.which(name) is None]
    return lacking + ([] if os.geteuid() == 0 else ["root, which debootstrap needs"])


def base(name: str = BASE, mirror: str = MIRROR) -> str:
    """Make the base image, unless there is one: Debian's smallest set with Python, without compilers, documents and caches.

    Of each package's documents the licence stays.

    Raises
    ------
    BuildError
        If Debian's packages cannot be had.
    """
    if subprocess.run(["podman", "image", "exists", name], check=False).returncode == 0:
        return name
    with tempfile.TemporaryDirectory(prefix="finrisk-base-") as folder:
        _run("debootstrap", "--variant=minbase", f"--include={','.join(_CONTENTS)}", SUITE, folder, mirror)
        for file in (Path(folder) / "usr/share/doc").rglob("*"):
            if file.is_file() and file.name != "copyright":
                file.unlink()
        pack = ["tar", "-C", folder, "-c", "--numeric-owner", *(f"--exclude={path}" for path in _LEFT_OUT), "."]
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packed:
            _run("podman", "import", "--quiet", "-", name, stdin=packed.stdout)
        if packed.returncode:
            raise BuildError(f"`{shlex.join(pack)}` ended with status {packed.returncode}")
    return name


def containerize(bento: str, image: str, environ: Mapping[str, str], uv: Path) -> str:
    """Make an image of a Bento on the local base.

    Parameters
    ----------
    bento, image
        Tag of the Bento in the store at ``BENTOML_HOME``, and name of the image.
    environ
        The environment of the command; what it says about package indexes is used in the build and stays out of the image.
    uv
        The program that installs the packages. It is lent to the build and is no part of the image.

    Raises
    ------
    BuildError
        If BentoML or buildah refuses.
    """
    with tempfile.TemporaryDirectory(prefix="finrisk-lent-") as folder:
        lent = Path(folder)
        lend(lent, environ, uv)
        _run(
            *(sys.executable, "-m", "bentoml", "containerize", bento, "--backend", "buildah", "--image-tag", image),
            *("--opt", f"from={base()}", "--opt", "network=host", "--opt", f"volume={lent}:/usr/local/bin:ro"),
            env={**environ, "BUILDAH_ISOLATION": "chroot", "BENTOML_DO_NOT_TRACK": "true"},
        )
    # `bentoml containerize` reports a failed build with status 0.
    if subprocess.run(["podman", "image", "exists", image], check=False).returncode:
        raise BuildError(f"there is no image {image} after the build")
    return image


def lend(folder: Path, environ: Mapping[str, str], uv: Path) -> None:
    """Put into a folder what the build sees as /usr/local/bin: uv, behind a script that knows this machine's indexes and certificates."""
    shutil.copy(uv.resolve(), folder / "uv.program")
    lines = ["export UV_NO_CACHE=1 UV_LINK_MODE=copy"]
    certificates = Path(environ.get("SSL_CERT_FILE") or _BUNDLE)
    if certificates.is_file():
        shutil.copy(certificates, folder / "certificates.pem")
        lines.append("export SSL_CERT_FILE=/usr/local/bin/certificates.pem")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(indexes(environ).items())]
    lines.append('exec /usr/local/bin/uv.program "$@"')
    script = folder / "uv"
    script.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf-8")
    script.chmod(0o755)


def indexes(environ: Mapping[str, str]) -> dict[str, str]:
    """Where this machine gets packages from, as settings of uv: uv's own, or else pip's index."""
    found = {name: value for name, value in environ.items() if name.startswith(_INDEX) and value}
    if not any(name.startswith(("UV_INDEX_URL", "UV_DEFAULT_INDEX")) for name in found):
        asked = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", "global.index-url"], env={**environ}, capture_output=True, text=True, check=False
        )
        index = environ.get("PIP_INDEX_URL") or asked.stdout.strip()
        found |= {"UV_DEFAULT_INDEX": index} if index else {}
    return found


def _run(*command: str, env: Mapping[str, str] | None = None, stdin: object = None) -> None:
    done = subprocess.run(command, env=env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # type: ignore[call-overload]
    if done.returncode:
        raise BuildError(f"`{shlex.join(command)}` ended with status {done.returncode}:\n" + "\n".join(done.stdout.splitlines()[-30:]))


def main() -> None:
    """Build one image from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bento", nargs="?", default="finrisk:latest", help="tag of the Bento in BENTOML_HOME")
    parser.add_argument("image", nargs="?", default="localhost/finrisk:latest", help="name of the image")
    asked = parser.parse_args()
    if lacking := missing():
        sys.exit(f"This machine lacks {', '.join(lacking)}. Debian: apt-get install --no-install-recommends {' '.join(PACKAGES)}")
    try:
        sys.stdout.write(containerize(asked.bento, asked.image, os.environ, ROOT / ".uv" / "bin" / "uv") + "\n")
    except BuildError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
