"""`python -m bento.store.migrations upgrade|check`: what `finrisk store` does, in a container."""

import sys

from bento.store.database import StoreError, StoreUnavailable
from bento.store.migrations import told
from finrisk_assets.settings import Settings, SettingsError

if __name__ == "__main__":
    try:
        if sys.argv[1:] not in (["upgrade"], ["check"]):
            raise StoreError("say `upgrade` or `check`")
        sys.stdout.write(told(Settings.from_environment(), upgrades=sys.argv[1] == "upgrade") + "\n")
    except (StoreError, StoreUnavailable, SettingsError) as error:
        sys.exit(f"Error: {error}")
