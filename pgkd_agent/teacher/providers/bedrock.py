"""Amazon Bedrock through its Converse API; region and credentials come from the environment or AWS' own files."""

import math
import os
from typing import Any
from uuid import uuid4

from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import TeacherUnavailableError
from pgkd_agent.teacher.providers.dialect import Capabilities
from pgkd_agent.teacher.providers.provider import ChatTeacher, Kind, Provider

# botocore's, before anything is sent
_NO_CREDENTIALS = (
    "(NoCredentials|PartialCredentials|(Credential|Token)Retrieval|SSOTokenLoad|UnauthorizedSSOToken)Error"
)


def build(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    import boto3
    from langchain_aws import ChatBedrockConverse

    session = boto3.Session()
    region = os.environ.get("AWS_REGION") or session.region_name  # boto3 itself only looks at AWS_DEFAULT_REGION
    if region is None:
        raise TeacherUnavailableError(f"teacher {settings.spec}: no AWS region; set AWS_REGION, e.g. us-east-1")
    if session.get_credentials() is None and not os.environ.get("AWS_BEARER_TOKEN_BEDROCK"):
        raise TeacherUnavailableError(
            f"teacher {settings.spec}: no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE, or AWS_BEARER_TOKEN_BEDROCK"
        )
    model = ChatBedrockConverse(
        model_id=name,
        region_name=region,
        temperature=settings.temperature,
        max_tokens=max_tokens,
        timeout=math.ceil(settings.timeout),
        max_retries=0,
        endpoint_url=settings.base_url,
    )
    model.client.meta.events.register("after-call.bedrock-runtime.Converse", _mend)
    return ChatTeacher(model, settings.spec)


def _mend(parsed: dict[str, Any], **_: Any) -> None:
    """An answer of the API without a message has an empty one, and every call of a tool an id and arguments."""
    if not {"output", "stopReason", "usage", "metrics"} & parsed.keys():
        return
    output = parsed.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    content = (message.get("content") if isinstance(message, dict) else None) or []
    blocks = [block for block in content if isinstance(block, dict)]
    for call in (block["toolUse"] for block in blocks if isinstance(block.get("toolUse"), dict)):
        call["toolUseId"] = str(call.get("toolUseId") or f"tooluse_{uuid4().hex[:12]}")
        call["name"] = str(call.get("name") or "unnamed")
        call["input"] = call["input"] if isinstance(call.get("input"), dict) else {}
    parsed["output"] = {"message": {"role": "assistant", "content": blocks}}
    parsed["usage"] = parsed.get("usage") or {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}


PROVIDER = Provider(
    "bedrock_converse",
    build,
    Capabilities(("tool", "text")),
    more_keys=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"),
    server_variables=("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"),
    address_fields=("client.meta.endpoint_url",),
    errors={
        Kind.AUTH: f"(AccessDenied|UnrecognizedClient|ExpiredToken|InvalidSignature)Exception|{_NO_CREDENTIALS}",
        Kind.QUOTA: "ServiceQuotaExceededException",
        Kind.NO_MODEL: "ResourceNotFoundException|model identifier is invalid",
        Kind.CONTEXT: "Input is too long",
        Kind.PASSING: "(Throttling|ModelNotReady|ServiceUnavailable)Exception"
        "|(ConnectionClosed|HTTPClient|ResponseStreaming)Error",
        Kind.NOT_API: "No 'output' key found",  # LangChain's
        Kind.EMPTY: "ResponseParserError",  # botocore's: a part without anything in it
    },
    unsent=f"ParamValidationError|(Endpoint|Proxy)ConnectionError|{_NO_CREDENTIALS}",
)
