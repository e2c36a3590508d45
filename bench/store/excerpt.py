"""A store of which some files were left out: what `bench export` writes. Separate because everywhere else a stage with
a missing file counts as not done, and who reads results needs no weights.
"""

from __future__ import annotations

import re
from dataclasses import replace

from bench.errors import UserError
from bench.store.done import Done, outputs_of, read_done, size_of
from bench.store.store import Store

# Beside a stage's record: what a report has made of it and kept (reports/predictions.py).
KEPT_BESIDE = re.compile(r"(draws|errors|more)-[\w.-]+\.(safetensors|json)")


class Excerpt(Store):
    """Reads an unpacked export. Of a stage the files that are here count; its digest is that of all that it had."""

    def done(self, key: str) -> Done | None:
        """As of a store, but a file may be missing; `digests` and `sizes` name those that are here. A file of another
        size makes the stage not done."""
        folder = self.folder(key)
        whole = read_done(folder / "done")
        if whole is None:
            return None
        found = {name: size_of(outputs_of(folder, whole.attempt) / name) for name in whole.sizes}
        here = {name: size for name, size in found.items() if size is not None}
        if any(size != whole.sizes[name] for name, size in here.items()):
            return None
        digests = {name: sha256 for name, sha256 in whole.digests.items() if name in here}
        part = replace(whole, digests=digests, sizes=here)
        vars(part)["digest"] = whole.digest  # else it would be stale to all that was made of it
        return part

    def read(self, key: str, name: str) -> bytes:
        """As of a store.

        Raises:
            UserError: also where the file was left out.
        """
        done = self.done(key)
        if done is not None and name not in done.digests:
            raise UserError(
                "this file was left out of the export", where=str(outputs_of(self.folder(key), done.attempt) / name),
                hint="export it again with --predictions, or read the store that it came from",
            )  # fmt: skip
        return super().read(key, name)
