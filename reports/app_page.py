"""The page of app.py: one document, one style, one script, all from this checkout."""

from __future__ import annotations

from pathlib import Path

from reports.page_style import STYLE

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Try the model</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/app.css">
<script src="/app.js" defer></script>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<h1>Try the model</h1>
<p class="soft" id="about">Loading.</p>
<div class="tabs" role="tablist" aria-label="Views" id="tabs" hidden>
<button type="button" role="tab" id="tab-photo" aria-controls="photo" aria-selected="true">Photograph</button>
<button type="button" role="tab" id="tab-queue" aria-controls="queue" aria-selected="false" tabindex="-1">Queue</button>
</div>
</header>
<main id="content" tabindex="-1">
<section id="photo" aria-labelledby="photo-title">
<h2 id="photo-title" class="hidden">Photograph</h2>
<div class="drop" id="drop">
<p>Drop an image here, paste one, or</p>
<div class="row">
<button type="button" class="main" id="choose">Choose a file</button>
<button type="button" id="camera">Take a photograph</button>
</div>
<input type="file" id="file" accept="image/*,.heic,.avif,.psd,.tga,.jp2" hidden aria-label="Image">
</div>
<div id="lens" hidden>
<video id="video" playsinline muted aria-label="The camera's picture"></video>
<div class="row">
<button type="button" class="main" id="shoot">Take it</button>
<button type="button" id="close-lens">Close the camera</button>
</div>
</div>
<p id="status" role="status"></p>
<p id="error" class="fault" role="alert"></p>
<div id="answer" hidden>
<div class="columns">
<figure class="seen">
<canvas id="canvas" role="img" aria-label="What the model sees"></canvas>
<figcaption id="caption"></figcaption>
<button type="button" id="plain" hidden>Show the whole picture</button>
</figure>
<div id="attributes"></div>
</div>
<section id="similar" aria-labelledby="similar-title" hidden>
<h2 id="similar-title">Most similar images</h2>
<div class="row" id="filters"></div>
<p id="similar-error" class="fault" role="alert"></p>
<ol class="found" id="found"></ol>
</section>
</div>
</section>
<section id="queue" aria-labelledby="queue-title" hidden>
<h2 id="queue-title" class="hidden">Queue</h2>
<p class="row"><progress id="progress" aria-labelledby="count"></progress> <span id="count"></span></p>
<p id="queue-error" class="fault" role="alert"></p>
<p id="queue-status" role="status"></p>
<div class="columns" id="cell" hidden>
<figure class="seen">
<img id="cell-image" alt="">
<figcaption id="cell-name"></figcaption>
</figure>
<div>
<h3 id="question" tabindex="-1"></h3>
<div id="guesses"></div>
<form id="other">
<label for="other-class" id="other-label">Another class</label>
<div class="row">
<input id="other-class" list="classes" autocomplete="off" maxlength="200">
<datalist id="classes"></datalist>
<button type="submit" id="save">Save</button>
</div>
</form>
<div class="row">
<button type="button" id="skip"><kbd>S</kbd> Skip</button>
<button type="button" id="undo" disabled><kbd>U</kbd> Undo</button>
</div>
<p class="soft" id="keys"></p>
</div>
</div>
<p class="soft" id="place"></p>
</section>
</main>
<noscript><p>This page needs JavaScript, which comes from this machine alone.</p></noscript>
</body>
</html>
"""

_HERE = Path(__file__).parent

FILES = {  # address: content type, content
    "/": ("text/html", _PAGE),
    "/app.css": ("text/css", STYLE + (_HERE / "app_page.css").read_text(encoding="utf-8")),
    "/app.js": ("text/javascript", (_HERE / "app_page.js").read_text(encoding="utf-8")),
}
