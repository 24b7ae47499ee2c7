"""Views by name. A new one is a file here, a test, and a line in the dict."""

from __future__ import annotations

from perceptune.core.views.blank import Blank
from perceptune.core.views.blur import Blur
from perceptune.core.views.degraded import Degraded
from perceptune.core.views.enhanced import Enhanced
from perceptune.core.views.jitter import Jitter
from perceptune.core.views.masked import Masked
from perceptune.core.views.noise import Noise
from perceptune.core.views.original import Original
from perceptune.core.views.perspective import Perspective
from perceptune.core.views.rectangles import Rectangles
from perceptune.core.views.rotation import Rotation
from perceptune.core.views.semantic import Semantic
from perceptune.core.views.view import View
from perceptune.core.views.zoom import Zoom

VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        Blank(),
        Blur(),
        Degraded(),
        Enhanced(),
        Jitter(),
        Masked(),
        Noise(),
        Original(),
        Perspective(),
        Rectangles(),
        Rotation(),
        Semantic(),
        Zoom(),
    )
}
