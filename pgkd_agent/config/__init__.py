"""The settings of a run, and where they come from."""

from pgkd_agent.config.merging import CLOSE, explain, flat_settings, setting_keys
from pgkd_agent.config.settings import (
    BudgetSettings,
    DataSettings,
    EnsembleMember,
    EvidenceSettings,
    GuardrailSettings,
    PGKDConfig,
    PGKDSettings,
    StudentSettings,
    TeacherSettings,
    ZeroShotSettings,
    provider_of,
)
from pgkd_agent.config.sources import RECIPES, build_config, nested_settings, read_yaml, to_yaml

__all__ = [
    "CLOSE",
    "RECIPES",
    "BudgetSettings",
    "DataSettings",
    "EnsembleMember",
    "EvidenceSettings",
    "GuardrailSettings",
    "PGKDConfig",
    "PGKDSettings",
    "StudentSettings",
    "TeacherSettings",
    "ZeroShotSettings",
    "build_config",
    "explain",
    "flat_settings",
    "nested_settings",
    "provider_of",
    "read_yaml",
    "setting_keys",
    "to_yaml",
]
