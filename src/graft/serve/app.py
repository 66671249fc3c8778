"""The web application: the page, and the same answers for programs."""

from threading import Lock

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from graft.model.model import Model
from graft.serve.answer import Answer, answer
from graft.serve.guard import Guard
from graft.serve.page import ASSETS, Page, asset
from graft.serve.posted import Posted, read


def app(model: Model, limit_mb: float) -> Starlette:
    """Answers to `GET /`, the form's `POST /`, and `POST /predict`; at most `limit_mb` megabytes are taken."""
    page = Page.of(model, limit_mb)
    one_at_a_time = Lock()
    limit = int(limit_mb * 1e6)

    def answer_alone(posted: Posted) -> Answer:
        with one_at_a_time:
            return answer(model, posted)

    async def read_posted(request: Request) -> Posted:
        return await read(request, page.parts, page.fused, limit)

    async def answer_to(posted: Posted) -> Answer:
        return await run_in_threadpool(answer_alone, posted)

    async def show(request: Request) -> Response:
        return HTMLResponse(page.html())

    async def show_answer(request: Request) -> Response:
        posted = None
        try:
            posted = await read_posted(request)
            found = await answer_to(posted)
        except HTTPException as error:
            values = posted.values if posted else None
            return HTMLResponse(page.html(problem=error.detail, values=values), error.status_code)
        html = await run_in_threadpool(page.html, found, values=posted.values)  # it makes small pictures
        return HTMLResponse(html)

    async def predict(request: Request) -> Response:
        try:
            found = await answer_to(await read_posted(request))
        except HTTPException as error:
            return JSONResponse({"error": error.detail}, error.status_code)
        return JSONResponse(found.row)

    async def send_asset(request: Request) -> Response:
        name = request.url.path.removeprefix("/")
        return Response(asset(name), media_type=ASSETS[name])

    routes = [
        Route("/", show),
        Route("/", show_answer, methods=["POST"]),
        Route("/predict", predict, methods=["POST"]),
        *(Route(f"/{name}", send_asset) for name in ASSETS),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard)])
