"""Who may ask and what a browser may do with the answer: this machine alone, from this page alone."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # of the Host header; any port, which an SSH tunnel may change
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; "
    "media-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer a browser sends no Origin with the page's own form
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware that refuses other hosts' names and other pages' posts, and sends security headers.

    Another web page in the user's browser could otherwise ask this one, through a name of its own that points here
    (DNS rebinding) or by a form.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the app do it."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        problem = problem_of(scope["method"], Headers(scope=scope))
        app = PlainTextResponse(problem, 403) if problem else self.app
        await app(scope, receive, send_with_headers)


def problem_of(method: str, headers: Headers) -> str:
    """Why a request is not answered; empty where it is."""
    host = headers.get("host", "")
    if host_name(host) not in NAMES:
        return f"This page is for {' and '.join(NAMES)} alone, and the request names the host {host!r}.\n"
    origin = headers.get("origin")
    if method not in ("GET", "HEAD") and origin is not None and origin != f"http://{host}":
        return f"This page takes what is posted from it alone, and this comes from {origin!r}.\n"
    return ""


def host_name(host: str) -> str:
    """The name in a Host header; empty where it is none."""
    try:
        return urlsplit(f"http://{host}").hostname or ""
    except ValueError:
        return ""
