"""Chat models of each provider: a file each, with how a model is built, what it takes and how its errors read."""

from pgkd_agent.teacher.providers.dialect import Capabilities, Dialect
from pgkd_agent.teacher.providers.provider import ChatTeacher, Kind, Provider
from pgkd_agent.teacher.providers.registry import register

__all__ = ["Capabilities", "ChatTeacher", "Dialect", "Kind", "Provider", "register"]
