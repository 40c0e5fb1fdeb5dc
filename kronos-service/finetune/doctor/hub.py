"""Whether the hub, or the mirror in its place, can be reached."""

import os
from typing import Final

import httpx

from kronos_service.finetune.doctor.finding import Finding

HUB: Final = "https://huggingface.co"
HUB_SECONDS: Final = 5.0
PROXIES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


def check_hub(needed: bool, seconds: float = HUB_SECONDS) -> Finding:
    """Whether it answers a HEAD request; silence is a fault only where something is `needed` from it."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        text = "HF_HUB_OFFLINE is set: only what is in the cache can be used"
        return Finding("fault", text, "unset it to fetch the base") if needed else Finding("ok", text)
    is_mirror = constants.ENDPOINT.rstrip("/") != HUB
    name = "the mirror that HF_ENDPOINT names" if is_mirror else "huggingface.co"
    proxies = [one for one in PROXIES if os.environ.get(one) or os.environ.get(one.lower())]
    way = f" ({', '.join(proxies)} set)" if proxies else ""
    why = _no_answer(constants.ENDPOINT, seconds)
    if not why:
        return Finding("ok", f"{name} answers{way}")
    remedy = f"check {', '.join([*(['HF_ENDPOINT'] if is_mirror else []), *proxies])}"
    if not is_mirror and not proxies:
        remedy = "behind a proxy set HTTPS_PROXY, for a mirror HF_ENDPOINT"
    if not needed:
        return Finding("note", f"{name} {why}{way}, which this base does not need", remedy)
    return Finding("fault", f"{name} {why}{way}", f"{remedy}, or copy the hub cache from another machine")


def _no_answer(endpoint: str, seconds: float) -> str:
    """Why a HEAD request gets no answer, in our words: the library's may hold an address with a password."""
    try:
        with httpx.Client(timeout=seconds) as client:
            status = client.head(endpoint).status_code
    except httpx.TimeoutException:
        return f"does not answer within {seconds:g} s"
    except httpx.ProxyError:
        return "cannot be reached: the proxy refuses"
    except httpx.ConnectError:
        return "cannot be reached: the name is unknown, the connection refused or its certificate not trusted"
    except httpx.HTTPError as error:
        return f"cannot be reached ({type(error).__name__})"
    except Exception:  # httpx reads the variables here: an unknown scheme, socks without its package
        return "cannot be reached: an address in the variables is not valid"
    if status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        return "cannot be reached: the proxy wants a user and a password"
    return f"answers with status {status}" if status >= httpx.codes.INTERNAL_SERVER_ERROR else ""
