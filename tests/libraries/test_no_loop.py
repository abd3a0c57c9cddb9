"""Libraries that refuse to work while a loop runs: what their error says, and that `%%noloop` helps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import below
from tests.libraries.servers import chromium

if TYPE_CHECKING:
    from tests.kernel.driver import CellResult, KernelDriver

DJANGO = """
import asyncio, django, loopnb
from django.conf import settings
if not settings.configured:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}
    settings.configure(DATABASES={"default": database}, INSTALLED_APPS=["django.contrib.contenttypes"])
    django.setup()
from django.contrib.contenttypes.models import ContentType
"""


def assert_names_noloop(refused: CellResult, error: str) -> None:
    assert refused.ename == error
    assert "Put %%noloop on top of the cell" in refused.traceback


def test_djangos_orm(kernel: KernelDriver) -> None:
    kernel.run(DJANGO)
    assert_names_noloop(kernel.execute("ContentType.objects.count()"), "SynchronousOnlyOperation")

    kernel.run(
        """
        %%noloop
        from django.core.management import call_command
        call_command("migrate", verbosity=0)
        ContentType.objects.get_or_create(app_label="one", model="two")
        """
    )

    assert kernel.run(below("%%noloop", "ContentType.objects.filter(model='two').count()")).result == "1"
    assert kernel.run("await ContentType.objects.filter(model='two').acount()").result == "1"


def test_asgiref(kernel: KernelDriver) -> None:
    kernel.run(
        """
        from asgiref.sync import async_to_sync
        async def answers(): return 7
        """
    )

    assert_names_noloop(kernel.execute("async_to_sync(answers)()"), "RuntimeError")
    assert kernel.run(below("%%noloop", "async_to_sync(answers)()")).result == "7"


OPEN_PAGE = """
%%noloop
from playwright.sync_api import sync_playwright
playwright = sync_playwright().start()
browser = playwright.chromium.launch(
    executable_path={executable!r}, args=["--no-sandbox"], handle_sigint=False
)
page = browser.new_page()
page.set_content("<h1>hello</h1>")
"""


@pytest.fixture
def _page(kernel: KernelDriver) -> None:
    kernel.run("import asyncio, loopnb")
    opened = kernel.execute(OPEN_PAGE.format(executable=chromium()), timeout=40)
    if "Executable doesn't exist" in opened.evalue:
        kernel.run(below("%%noloop", "playwright.stop()"))
        pytest.skip("there is no Chromium")
    opened.expect_ok()


@pytest.mark.usefixtures("_page")
def test_playwrights_sync_objects_live_across_cells(kernel: KernelDriver) -> None:
    texts = [kernel.run(below("%%noloop", "page.inner_text('h1')")).result]
    assert kernel.run("await asyncio.sleep(0.001, 'the loop turns')").result == "'the loop turns'"
    kernel.run(below("%%noloop", "page.set_content('<h1>bye</h1>')"))
    kernel.run(
        """
        with loopnb.noloop():
            text = page.inner_text("h1")
        """
    )
    texts.append(kernel.run("text").result)
    waiting = kernel.start(below("%%noloop", "print('waits')\npage.wait_for_timeout(60_000)"))
    waiting.wait_output("waits")
    kernel.interrupt_until_done(waiting)
    texts.append(kernel.run(below("%%noloop", "page.inner_text('h1')")).result)

    assert texts == ["'hello'", "'bye'", "'bye'"]
    assert waiting.wait().ename == "KeyboardInterrupt"
    assert_names_noloop(kernel.execute("sync_playwright().start()"), "Error")
    kernel.run(below("%%noloop", "browser.close(); playwright.stop()"))


@pytest.mark.usefixtures("_page")
def test_playwrights_sync_objects_in_a_plain_cell_leave_the_loop_running(kernel: KernelDriver) -> None:
    plain = kernel.run("page.inner_text('h1')")

    assert plain.result == "'hello'"
    assert "Put %%noloop on top" in plain.stderr
    assert kernel.run("await asyncio.sleep(0.001, 'the loop turns')").result == "'the loop turns'"
    assert kernel.run(below("%%noloop", "page.inner_text('h1')")).result == "'hello'"
    beside_an_await = kernel.execute(
        """
        page.inner_text("h1")
        await asyncio.sleep(0.001)
        """
    )
    assert "attached to a different loop" in beside_an_await.evalue
    assert kernel.run("asyncio.run(asyncio.sleep(0.001, 'nests'))").result == "'nests'"
    kernel.run(below("%%noloop", "browser.close(); playwright.stop()"))


AGENTS = """
import asyncio, loopnb
from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
from openai.types.responses import ResponseOutputMessage, ResponseOutputText
set_tracing_disabled(True)
class Model(Model):
    async def get_response(self, *args, **options):
        await asyncio.sleep(0.001)
        text = ResponseOutputText(text="hello", type="output_text", annotations=[])
        said = ResponseOutputMessage(
            id="1", type="message", role="assistant", status="completed", content=[text]
        )
        return ModelResponse(output=[said], usage=Usage(), response_id=None)
    def stream_response(self, *args, **options): ...
agent = Agent(name="one", model=Model())
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_openai_agents(kernel: KernelDriver) -> None:
    kernel.run(AGENTS, timeout=90)
    run = "Runner.run_sync(agent, 'hi').final_output"

    assert_names_noloop(kernel.execute(run), "RuntimeError")
    assert kernel.run(below("%%noloop", run)).result == "'hello'"
    assert kernel.run("(await Runner.run(agent, 'hi')).final_output").result == "'hello'"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_pydantic_ai(kernel: KernelDriver) -> None:
    kernel.run(
        """
        from pydantic_ai import Agent
        from pydantic_ai.models.test import TestModel
        agent = Agent(TestModel(custom_output_text="hello"))
        """,
        timeout=90,
    )

    assert kernel.run("agent.run_sync('hi').output").result == "'hello'"
    assert_names_noloop(kernel.execute("agent.run_stream_sync('hi')"), "RuntimeError")
    assert kernel.run(below("%%noloop", "agent.run_stream_sync('hi').get_output()")).result == "'hello'"


@pytest.mark.slow
def test_telethon(kernel: KernelDriver) -> None:
    kernel.run(
        """
        from telethon import TelegramClient
        from telethon.sessions import MemorySession
        client = TelegramClient(MemorySession(), 1, "x", connection_retries=0)
        client.session.set_dc(2, "127.0.0.1", 1)  # nobody is there
        """
    )

    assert_names_noloop(kernel.execute("with client: pass"), "RuntimeError")
    # Without a server: it has tried to connect.
    assert kernel.execute(below("%%noloop", "with client: pass")).ename == "ConnectionError"
