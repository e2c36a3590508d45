"""`ui`: MLflow on a store."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.options import DEFAULT_STORE, StoreOption
from bench.store.existing import not_another
from bench.tracking.place import DATABASE


def command(
    store: StoreOption = DEFAULT_STORE,
    port: Annotated[int, typer.Option(min=1024, max=65535, help="Port on 127.0.0.1.")] = 5000,
    auth: Annotated[bool, typer.Option("--auth", help="Ask for a password (MLflow's basic-auth).")] = False,
) -> None:
    """Open MLflow on 127.0.0.1 for a store. Ctrl-C ends it.

    Without --auth every user of this machine can read and change what it shows.
    """
    if not (store / DATABASE).exists():
        not_another(store)
    from bench.tracking.ui import ui as serve

    serve(store, port, auth=auth)
