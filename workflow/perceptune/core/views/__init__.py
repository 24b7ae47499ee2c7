"""Views by name. A new one is a file here, a test, and a line in the dict."""

from __future__ import annotations

from perceptune.core.views.blank import Blank
from perceptune.core.views.degraded import Degraded
from perceptune.core.views.enhanced import Enhanced
from perceptune.core.views.noise import Noise
from perceptune.core.views.original import Original
from perceptune.core.views.view import View

VIEWS: dict[str, View] = {view.name: view for view in (Blank(), Degraded(), Enhanced(), Noise(), Original())}
