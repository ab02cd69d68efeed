"""Pages over the fleet's read model: what needs attention, why a device is not updated, how a rollout is judged.

    app       routes; asks the fleet's desks, writes nothing by itself
    session   signing in by token, and forms that only our own pages can send
    render    templates and the headers every answer carries
    words     states and numbers as people read them; pure
    picture   the raspberry and the small curves, as SVG geometry; pure
    chart     a rollout's evidence as data for the chart; pure
    assets    style sheet, scripts and the chart library, from inside the installed packages

A composition mounts `pages(desks)` at `/` after everything else.
"""

from drupelet.web.app import pages

__all__ = ["pages"]
