"""Edit a region: a box is generated anew from another prompt, from noise or from its own contents noised to
`strength` (SDEdit, arXiv:2108.01073); what is around it is given."""

from trainer.tasks.base import Task
from trainer.tasks.regions import drawer, holding

TASK = Task(
    "edit_region",
    "a region of a video made anew",
    drawer(inside=False),
    lambda grid, views: holding(views, inside=False),
    "regions",
)
