"""An alert by e-mail, started by the automations that watch the OLAP layer."""

from __future__ import annotations

from prefect import flow

from tasks.alert import send_alert


@flow(name="alert", flow_run_name="{subject}", persist_result=False)
async def alert(subject: str, body: str) -> str:
    """Send one e-mail to the people that `mozart deploy` was told of.

    Args:
        subject: The e-mail's subject.
        body: Its text.
    """
    return await send_alert(subject, body)
