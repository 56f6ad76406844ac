"""The version of the code: metadata of an editable install may be those of an older one."""

from __future__ import annotations

VERSION = "0.2.0"
