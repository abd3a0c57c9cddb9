"""Tortoise ORM, which keeps its connections in context variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

DEFINE = """
import asyncio, sys, types
from tortoise import Tortoise, fields
from tortoise.models import Model
class Event(Model):
    id = fields.IntField(primary_key=True)
    name = fields.TextField()
    class Meta: app = "models"
module = sys.modules["events"] = types.ModuleType("events")
module.Event = Event
Event.__module__ = "events"
async def count(): return await Event.all().count()
"""


def test_what_one_cell_has_connected_serves_the_next_ones(kernel: KernelDriver) -> None:
    kernel.run(DEFINE)
    kernel.run(
        """
        await Tortoise.init(db_url="sqlite://:memory:", modules={"models": ["events"]})
        await Tortoise.generate_schemas()
        """
    )
    kernel.run("await Event.create(name='one')")
    kernel.run(
        """
        %%aloop
        await Event.create(name="two")
        """
    )
    kernel.run(
        """
        %%aloop -b -o handle
        await count()
        """
    )

    for cell in ("await count()", "asyncio.run(count())", "%aloop count()", "await handle"):
        assert kernel.run(cell).result == "2"
    kernel.run("await Tortoise.close_connections()")
