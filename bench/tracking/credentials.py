"""User and password of a tracking server, kept out of all that is stored or shown. Separate because the command line
takes them out of the address before anything else sees it.

MLflow reads them from two environment variables, which jobs inherit: other users can read neither those nor, unlike a
command line, see them in a list of processes.
"""

from __future__ import annotations

import os
import sys
from urllib.parse import unquote, urlsplit, urlunsplit

USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
ADDRESS = "MLFLOW_TRACKING_URI"


def taken(uri: str | None) -> str | None:
    """The address of a server without user and password, which go into the environment of this process and its jobs;
    any other uri as it is."""
    if uri is None or not uri.startswith(("http://", "https://")):
        return uri
    parts = urlsplit(uri)
    userinfo, at, place = parts.netloc.rpartition("@")
    if not at:
        return uri
    user, _, password = userinfo.partition(":")
    os.environ[USER], os.environ[PASSWORD] = unquote(user), unquote(password)
    clean = urlunsplit(parts._replace(netloc=place))
    if os.environ.get(ADDRESS) == uri:
        os.environ[ADDRESS] = clean
    elif password:
        print(f"note: others on this machine can see a password in a command line; set {USER} and {PASSWORD} instead",
              file=sys.stderr)  # fmt: skip
    return clean
