"""Cross-origin requests: which other sites' pages may ask from within a browser."""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

__all__ = ["cors"]

REQUEST_HEADERS = (
    "Authorization, Content-Type, X-API-Key, X-Priority, X-Request-ID, X-Request-Timeout"
)
RESPONSE_HEADERS = "Retry-After, WWW-Authenticate, X-Request-ID"
PREFLIGHT_SECONDS = 600  # for which a browser may remember what it was allowed


def cors(origins: frozenset[str]) -> Middleware:
    """Let pages of these origins, or of any for ``*``, send requests and read the answers.

    Nothing is kept from others than browsers by this; keys are for that. Cookies are not concerned:
    there are none.
    """
    everybody = "*" in origins

    @web.middleware
    async def allow(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        allowed = everybody or origin in origins
        if origin is not None and _is_preflight(request):
            response: web.StreamResponse = web.Response(status=204)
            if allowed:
                response.headers["Access-Control-Allow-Methods"] = ", ".join(_methods(request))
                response.headers["Access-Control-Allow-Headers"] = REQUEST_HEADERS
                response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
        else:
            response = await handler(request)
        if not everybody:
            response.headers["Vary"] = "Origin"
        if origin is not None and allowed:
            response.headers["Access-Control-Allow-Origin"] = "*" if everybody else origin
            response.headers["Access-Control-Expose-Headers"] = RESPONSE_HEADERS
        return response

    return allow


def _is_preflight(request: web.Request) -> bool:
    return (
        request.method == "OPTIONS"
        and "Access-Control-Request-Method" in request.headers
        and bool(_methods(request))
    )


def _methods(request: web.Request) -> list[str]:
    """What the path takes; no route takes OPTIONS, so the router has told it."""
    refused = request.match_info.http_exception
    return sorted(refused.allowed_methods) if isinstance(refused, web.HTTPMethodNotAllowed) else []
