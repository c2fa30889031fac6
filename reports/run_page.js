// The parts of a run's report that react: confusion matrices, and the map of images. Keyboard and pointer do the same.
(function () {
  'use strict';
  var element = document.getElementById('data');
  if (!element) { return; }
  var data = JSON.parse(element.textContent);
  var drawings = [];

  function color(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

  // A canvas with as many pixels as the screen has; returns its context in CSS pixels.
  function resized(canvas, width, height) {
    var ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = width + 'px';
    canvas.style.height = height + 'px';
    var context = canvas.getContext('2d');
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return context;
  }

  function cut(context, text, width) {
    while (text.length > 1 && context.measureText(text).width > width) { text = text.slice(0, -2) + '…'; }
    return text;
  }

  var STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  // Confusion matrices: rows are labels, columns are predictions.
  document.querySelectorAll('.matrix').forEach(function (place) {
    var matrix = data.matrices[Number(place.getAttribute('data-matrix'))];
    var canvas = place.querySelector('canvas'), words = place.querySelector('.readout');
    var choice = place.querySelector('select'), scroll = place.querySelector('.scroll');
    var shown = [], counts = {}, at = null, side = 0, left = 0, top = 0;

    matrix.cells.forEach(function (cell) { counts[cell[0] + ' ' + cell[1]] = cell[2]; });
    function count(row, column) { return counts[row + ' ' + column] || 0; }

    function counted(context, found, x, y) {
      var strong = context.globalAlpha > 0.55;
      context.globalAlpha = 1;
      context.fillStyle = color(strong ? '--page' : '--ink');
      context.font = '12px system-ui, sans-serif';
      context.textAlign = 'center';
      context.textBaseline = 'middle';
      context.fillText(String(found), left + (x + 0.5) * side, top + (y + 0.5) * side);
    }

    function draw() {
      shown = matrix.orders[choice.value];
      var named = shown.length <= 40, width = scroll.clientWidth;
      left = named ? Math.min(130, Math.round(width * 0.3)) : 12;
      top = named ? 84 : 12;
      var right = named ? 46 : 2;  // room for the last names, which lean over
      side = Math.max(named ? 11 : 3, Math.min(36, Math.floor((width - left - right) / shown.length)));
      var size = side * shown.length, context = resized(canvas, left + size + right, top + size + 2);
      var hit = color('--right'), miss = color('--wrong'), gap = side > 6 ? 1 : 0;
      context.fillStyle = color('--band');
      context.fillRect(left, top, size, size);
      shown.forEach(function (label, y) {
        shown.forEach(function (predicted, x) {
          var found = count(label, predicted);
          if (!found) { return; }
          context.globalAlpha = 0.12 + 0.88 * Math.sqrt(found / matrix.images[label]);
          context.fillStyle = label === predicted ? hit : miss;
          context.fillRect(left + x * side, top + y * side, side - gap, side - gap);
          if (side >= 26) { counted(context, found, x, y); }
        });
      });
      context.globalAlpha = 1;
      context.fillStyle = color('--ink');
      context.font = Math.min(13, Math.max(9, side)) + 'px system-ui, sans-serif';
      context.textBaseline = 'middle';
      if (named) {
        context.textAlign = 'right';
        shown.forEach(function (label, y) {
          context.fillText(cut(context, matrix.names[label], left - 8), left - 5, top + (y + 0.5) * side);
        });
        context.textAlign = 'left';
        shown.forEach(function (label, x) {
          context.save();
          context.translate(left + (x + 0.5) * side, top - 5);
          context.rotate(-Math.PI / 3);
          context.fillText(cut(context, matrix.names[label], 88), 0, 0);
          context.restore();
        });
      }
      if (at) {
        context.strokeStyle = color('--ink');
        context.lineWidth = 1;
        context.strokeRect(left - 0.5, top + at[1] * side - 0.5, size + 1, side);
        context.strokeRect(left + at[0] * side - 0.5, top - 0.5, side, size + 1);
        context.lineWidth = 2.5;
        context.strokeRect(left + at[0] * side - 1, top + at[1] * side - 1, side + 1, side + 1);
      }
    }

    function say() {
      var label = shown[at[1]], predicted = shown[at[0]], found = count(label, predicted);
      var images = matrix.images[label], share = images ? ' (' + (100 * found / images).toFixed(1) + '%)' : '';
      words.textContent = 'Label ' + matrix.names[label] + ', prediction ' + matrix.names[predicted] + ': ' +
        found + ' of ' + images + ' images' + share;
      draw();
    }

    function point(event) {
      var box = canvas.getBoundingClientRect();
      var x = Math.floor((event.clientX - box.left - left) / side), y = Math.floor((event.clientY - box.top - top) / side);
      if (x >= 0 && y >= 0 && x < shown.length && y < shown.length) { at = [x, y]; say(); }
    }

    canvas.addEventListener('pointermove', point);
    canvas.addEventListener('pointerdown', point);
    canvas.addEventListener('keydown', function (event) {
      var step = STEPS[event.key];
      if (!step) { return; }
      event.preventDefault();
      var last = shown.length - 1;
      at = at ? [Math.max(0, Math.min(last, at[0] + step[0])), Math.max(0, Math.min(last, at[1] + step[1]))] : [0, 0];
      say();
    });
    choice.addEventListener('change', function () { at = null; words.textContent = words.getAttribute('data-hint'); draw(); });
    words.textContent = words.getAttribute('data-hint');
    drawings.push(draw);
  });

  // The map: each image is a point, and the chosen one has its picture beside it.
  var map = document.querySelector('.map');
  if (map && data.map) {
    var points = data.map, plane = map.querySelector('canvas.plane'), picture = map.querySelector('canvas.picture');
    var by = map.querySelector('select.by'), legend = map.querySelector('.legend'), lines = map.querySelector('.lines');
    var sprite = document.getElementById('sprite'), at = -1, picked = null, size = 0, groups = null;
    var SERIES = ['--point0', '--point1', '--point2', '--point3', '--point4', '--point5', '--point6', '--point7'];

    // The groups that the points are colored by: the most frequent classes, and the rest.
    var group = function () {
      var choice = (by.value || '').split(' '), one = points.attributes[Number(choice[0])];
      if (!one) { return { of: points.x.map(function () { return -2; }), names: [], totals: [] }; }
      var codes, names;
      if (choice[1] === 'right') {
        names = ['right', 'wrong'];
        codes = one.labels.map(function (label, i) { return label < 0 ? -1 : one.right[i] ? 0 : 1; });
      } else {
        names = one.names;
        codes = choice[1] === 'label' ? one.labels : one.predictions;
      }
      var totals = {};
      codes.forEach(function (code) { if (code >= 0) { totals[code] = (totals[code] || 0) + 1; } });
      var order = Object.keys(totals).map(Number).sort(function (a, b) {
        return choice[1] === 'right' ? a - b : totals[b] - totals[a] || a - b;
      });
      var kept = order.length > SERIES.length ? order.slice(0, SERIES.length) : order, others = 0;
      order.slice(kept.length).forEach(function (code) { others += totals[code]; });
      var result = { of: codes.map(function (code) { return code < 0 ? -1 : kept.indexOf(code) < 0 ? -2 : kept.indexOf(code); }) };
      result.names = kept.map(function (code, i) { return [i, names[code], totals[code]]; });
      if (others) { result.names.push([-2, (order.length - kept.length) + ' other classes', others]); }
      var blank = codes.filter(function (code) { return code < 0; }).length;
      if (blank) { result.names.push([-1, 'no label', blank]); }
      return result;
    };

    var shade = function (which) { return color(which >= 0 ? SERIES[which] : which === -2 ? '--other' : '--line'); };

    var drawMap = function () {
      size = Math.min(640, plane.parentNode.clientWidth);
      var height = Math.round(size * 0.8), context = resized(plane, size, height);
      context.fillStyle = color('--band');
      context.fillRect(0, 0, size, height);
      points.x.forEach(function (x, i) {
        var which = groups.of[i];
        context.globalAlpha = picked === null || picked === which ? 0.85 : 0.1;
        context.fillStyle = shade(which);
        context.beginPath();
        context.arc(place(i)[0], place(i)[1], size > 400 ? 3.6 : 2.8, 0, 7);
        context.fill();
      });
      context.globalAlpha = 1;
      if (at >= 0) {
        context.strokeStyle = color('--ink');
        context.lineWidth = 2.5;
        context.beginPath();
        context.arc(place(at)[0], place(at)[1], 8, 0, 7);
        context.stroke();
      }
    };

    var place = function (i) { return [12 + points.x[i] / 1000 * (size - 24), 12 + points.y[i] / 1000 * (size * 0.8 - 24)]; };

    var show = function (i) {
      at = i;
      var context = resized(picture, 120, 120), tile = points.tile, columns = points.columns;
      if (sprite.complete && sprite.naturalWidth) {
        context.imageSmoothingQuality = 'high';
        context.drawImage(sprite, i % columns * tile, Math.floor(i / columns) * tile, tile, tile, 0, 0, 120, 120);
      }
      lines.textContent = '';
      var add = function (text, kind) {
        var line = document.createElement('div');
        line.textContent = text;
        if (kind) { line.className = kind; }
        lines.appendChild(line);
      };
      add(points.images[i], 'soft');
      points.attributes.forEach(function (one) {
        var label = one.texts ? one.texts[i] : one.labels[i] < 0 ? 'no label' : one.names[one.labels[i]];
        var predicted = one.predictions[i] < 0 ? '' : ', predicted ' + one.names[one.predictions[i]];
        add(one.name + ': ' + label + (one.right[i] ? ', right' : predicted), one.labels[i] >= 0 && !one.right[i] ? 'error' : '');
      });
      drawMap();
    };

    var nearest = function (x, y) {
      var best = -1, least = 900;
      points.x.forEach(function (_, i) {
        if (picked !== null && groups.of[i] !== picked) { return; }
        var dx = place(i)[0] - x, dy = place(i)[1] - y;
        if (dx * dx + dy * dy < least) { least = dx * dx + dy * dy; best = i; }
      });
      return best;
    };

    var hover = function (event) {
      var box = plane.getBoundingClientRect(), found = nearest(event.clientX - box.left, event.clientY - box.top);
      if (found >= 0 && found !== at) { show(found); }
    };

    // The nearest point in the direction of an arrow key.
    var next = function (step) {
      if (at < 0) { return 0; }
      var best = at, least = Infinity;
      points.x.forEach(function (_, i) {
        if (picked !== null && groups.of[i] !== picked) { return; }
        var dx = place(i)[0] - place(at)[0], dy = place(i)[1] - place(at)[1];
        var along = dx * step[0] + dy * step[1], across = Math.abs(dx * step[1]) + Math.abs(dy * step[0]);
        if (along > 0.01 && across <= along * 1.5 && along + 2 * across < least) { least = along + 2 * across; best = i; }
      });
      return best;
    };

    var regroup = function () {
      groups = group();
      picked = null;
      legend.textContent = '';
      groups.names.forEach(function (entry) {
        var button = document.createElement('button'), dot = document.createElement('span');
        button.type = 'button';
        button.setAttribute('aria-pressed', 'false');
        dot.className = 'dot';
        dot.style.background = 'var(' + (entry[0] >= 0 ? SERIES[entry[0]] : entry[0] === -2 ? '--other' : '--line') + ')';
        button.appendChild(dot);
        button.appendChild(document.createTextNode(entry[1] + ' (' + entry[2] + ')'));
        button.addEventListener('click', function () {
          picked = picked === entry[0] ? null : entry[0];
          legend.querySelectorAll('button').forEach(function (one) {
            one.setAttribute('aria-pressed', String(one === button && picked !== null));
          });
          drawMap();
        });
        legend.appendChild(button);
      });
      drawMap();
    };

    plane.addEventListener('pointermove', hover);
    plane.addEventListener('pointerdown', hover);
    plane.addEventListener('keydown', function (event) {
      var step = STEPS[event.key];
      if (step) { event.preventDefault(); show(next(step)); }
    });
    by.addEventListener('change', regroup);
    groups = group();
    drawings.push(drawMap);
    regroup();
    sprite.decode().then(function () { if (at < 0) { show(0); } }, function () {});
  }

  function redraw() { drawings.forEach(function (draw) { draw(); }); }
  var waiting = 0;
  window.addEventListener('resize', function () { clearTimeout(waiting); waiting = setTimeout(redraw, 100); });
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
  document.querySelectorAll('details').forEach(function (one) { one.addEventListener('toggle', redraw); });
  redraw();
})();
