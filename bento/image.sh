#!/bin/sh
# Runs once, while the container image is built, after the packages are installed (see bentofile.yaml). The container's file system is
# read-only and its Python cannot keep what it compiles: without this every start would compile the service again.
set -eu
# So that `python -m bento.single_process` and the operator's commands are found in whatever folder they are called.
for packages in /app/.venv/lib/python3*/site-packages; do echo "$PWD/src" > "$packages/finrisk.pth"; done
/app/.venv/bin/python -m compileall -q --invalidation-mode unchecked-hash src
# Tests that libraries ship with themselves: a tenth of the image, and a private key among them.
cd /app/.venv/lib/python3*/site-packages
find numpy tornado -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +
