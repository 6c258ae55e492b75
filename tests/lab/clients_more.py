"""Programs that are too large to install for every test run: `invoke clients-table --all` runs them."""

from __future__ import annotations

from .clients_data import DATA
from .clients_frameworks import FRAMEWORKS
from .clients_llm import LLM
from .clients_packages import PACKAGES
from .clients_raw import RAW

FURTHER = (*LLM, *PACKAGES, *DATA, *FRAMEWORKS, *RAW)
