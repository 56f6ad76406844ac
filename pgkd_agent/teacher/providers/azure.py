"""Deployments on Azure OpenAI, by their names."""

import os

from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import TeacherUnavailableError
from pgkd_agent.teacher.providers.completions import mending
from pgkd_agent.teacher.providers.openai import CAPABILITIES, one_try
from pgkd_agent.teacher.providers.provider import ChatTeacher, Kind, Provider


def build(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    from langchain_openai import AzureChatOpenAI

    endpoint = PROVIDER.server_of(settings)
    missing = [] if endpoint else ["AZURE_OPENAI_ENDPOINT (or `teacher.base_url`)"]
    missing += [name for name in ("AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION") if not os.environ.get(name)]
    if missing:
        raise TeacherUnavailableError(f"teacher {settings.spec}: set {', '.join(missing)}")
    model = mending(AzureChatOpenAI)(azure_deployment=name, azure_endpoint=endpoint, **one_try(settings, max_tokens))
    return ChatTeacher(model, settings.spec)


PROVIDER = Provider(
    "azure_openai",
    build,
    CAPABILITIES,
    more_keys=("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"),
    server_variables=("AZURE_OPENAI_ENDPOINT",),
    address_fields=("root_client.base_url",),
    errors={
        Kind.NO_MODEL: "DeploymentNotFound",
        Kind.REFUSED: "ResponsibleAIPolicyViolation|content filter being triggered",  # the second is LangChain's
    },
)
