"""The JavaScript bundle that draws the charts: Vega, Vega-Lite and Vega-Embed, made from a package when the environment is set up.

`python -m bento.console.presentation.vega_bundle` makes it with vl-convert-python (BSD-3), which carries the three libraries (BSD-3). The
package is large, so it belongs to no environment that runs: `make console-assets` makes the bundle once, and only the bundle stays. Where
it is absent the pages show tables instead and say what to do.
"""

import gzip
from pathlib import Path

BUNDLE = Path(__file__).parents[1] / "static" / "vega.js.gz"
"""The bundle, compressed; git ignores it."""
MAKE = "make console-assets"
"""The command that makes the bundle."""
# A module, so that the names of the libraries stay inside. Vega-Embed brings the interpreter of expressions that a strict policy needs.
_SNIPPET = "window.vegaEmbed = vegaEmbed;"


def has_bundle() -> bool:
    """Return whether the bundle was made."""
    return BUNDLE.is_file()


def make_bundle() -> int:
    """Make the bundle; return its compressed size in bytes. The same package gives the same bytes."""
    from importlib import import_module

    # No environment that runs has the package, so neither type checkers nor the linter of imports look for it.
    vl_convert = import_module("vl_convert")

    content = gzip.compress(vl_convert.javascript_bundle(_SNIPPET).encode(), 9, mtime=0)
    BUNDLE.parent.mkdir(exist_ok=True)
    partial = BUNDLE.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(BUNDLE)
    return len(content)


if __name__ == "__main__":
    print(f"{BUNDLE}: {make_bundle() / 1e3:,.0f} kB")  # noqa: T201 - the command's output
