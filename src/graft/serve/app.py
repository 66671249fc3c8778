"""The web application: the page, and the same answers for programs."""

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
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
    one_at_a_time = CapacityLimiter(1)
    limit = int(limit_mb * 1e6)

    async def read_posted(request: Request) -> Posted:
        return await read(request, page.modality, limit)

    async def answer_to(posted: Posted) -> Answer:
        return await to_thread.run_sync(answer, model, posted, limiter=one_at_a_time)

    async def show(request: Request) -> Response:
        return HTMLResponse(page.html())

    async def show_answer(request: Request) -> Response:
        posted = None
        try:
            posted = await read_posted(request)
            found = await answer_to(posted)
        except HTTPException as error:
            return HTMLResponse(page.html(problem=error.detail, values=posted and posted.values), error.status_code)
        html = await to_thread.run_sync(page.html, found, "", posted.values)  # it makes small pictures
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
