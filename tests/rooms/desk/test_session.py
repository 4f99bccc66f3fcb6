"""What commands ask of a session is what a session takes, through the supervisor's JSON."""

from __future__ import annotations

from runner.rooms.desk.settings import Settings


def test_an_order_survives_the_way_from_the_command_line() -> None:
    """In strict mode a list is no tuple, unless it comes as JSON."""
    order = {"experiments": (3,), "seeds": 2, "budget": 8, "depth": None, "profile": None}
    made = Settings(home="h", tag="t", doors="d", seed="s", order=order)  # type: ignore[arg-type] # as cli/run.py does
    again = Settings.model_validate_json(made.model_dump_json())
    assert again == made
    assert again.order is not None
    assert again.order.experiments == (3,)
