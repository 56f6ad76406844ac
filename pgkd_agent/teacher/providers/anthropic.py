"""Anthropic's own API."""

from pgkd_agent.teacher.providers.anthropic_batch import AnthropicBatches
from pgkd_agent.teacher.providers.dialect import Capabilities
from pgkd_agent.teacher.providers.other import build
from pgkd_agent.teacher.providers.provider import Kind, Provider

PROVIDER = Provider(
    "anthropic",
    build,
    Capabilities(("tool", "text")),
    module="langchain_anthropic",
    install="pgkd-agent[anthropic]",
    keys=("ANTHROPIC_API_KEY",),
    more_keys=("ANTHROPIC_AUTH_TOKEN",),
    server_variables=("ANTHROPIC_API_URL", "ANTHROPIC_BASE_URL"),
    address_fields=("anthropic_api_url",),
    errors={
        Kind.AUTH: "Could not resolve authentication method",  # its client, without a key
        Kind.QUOTA: "credit balance is too low",
        Kind.CONTEXT: "prompt is too long|exceed context limit",  # the second of prompt and reply together
    },
    jobs=AnthropicBatches,
)
