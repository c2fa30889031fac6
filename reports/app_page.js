'use strict';
// The page of app.py. Whatever comes from a user or a table enters the page as text, never as markup.

var facts = null; // what /facts says
var photo = null; // {bytes, name, answer, image, shown}
var cell = null; // the queued cell that is shown
var chosen = []; // values of a cell with several
var pending = null; // the new class that a second Enter confirms
var busy = false; // an answer is on its way
var asked = 0; // number of the last image that was sent

function by(id) { return document.getElementById(id); }

function make(kind, settings, parts) {
  var node = document.createElement(kind);
  Object.keys(settings || {}).forEach(function (name) {
    if (name === 'text') node.textContent = settings[name];
    else if (name === 'on') node.addEventListener('click', settings[name]);
    else node.setAttribute(name, settings[name]);
  });
  (parts || []).forEach(function (part) { node.appendChild(part); });
  return node;
}

function say(id, text) { by(id).textContent = text; }
function percent(value) { return value > 0.9995 && value < 1 ? '>99.9%' : (100 * value).toFixed(1) + '%'; }
function count(number, one, more) { return number.toLocaleString('en') + ' ' + (number === 1 ? one : more); }
function shown(value) { return String(value).replace(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, '\ufffd'); }
function memory(name, value) {
  try {
    if (value === undefined) return JSON.parse(sessionStorage.getItem(name) || 'null');
    sessionStorage.setItem(name, JSON.stringify(value));
  } catch (error) { return null; } // a browser without storage forgets on reload
  return value;
}

// Return what the server answers, or throw one sentence.
async function ask(address, body, kind) {
  var settings = body === undefined ? {} : {method: 'POST', body: body, headers: {'Content-Type': kind}};
  var answer, content;
  try {
    answer = await fetch(address, settings);
    content = await answer.json();
  } catch (error) {
    throw new Error('app.py does not answer: see whether it still runs');
  }
  if (!answer.ok) throw new Error(content.error);
  return content;
}

function send(address, content) { return ask(address, JSON.stringify(content), 'application/json'); }

// the photograph

async function read(blob, name) {
  var turn = ++asked;
  say('error', '');
  if (blob.size > facts.mostBytes) { by('answer').hidden = true; say('status', ''); say('error', facts.tooManyBytes); return; }
  say('status', 'Reading ' + shown(name) + '.');
  try {
    var bytes = await blob.arrayBuffer();
    var answer = await ask('/photo', bytes, 'application/octet-stream');
    var image = new Image();
    image.src = answer.seen;
    await image.decode();
    if (turn !== asked) return; // a later image was sent meanwhile
    photo = {bytes: bytes, name: name, answer: answer, image: image, shown: null};
    facts.promise = answer.promise;
    say('status', shown(name));
    showAnswer();
    by('answer').hidden = false;
    if (facts.promise && facts.promise.state === 'measuring') setTimeout(function () { awaitPromise(turn); }, 2000);
    if (facts.index) await findSimilar();
  } catch (error) {
    if (turn !== asked) return;
    by('answer').hidden = true;
    say('status', '');
    say('error', error.message);
  }
}

// Show what the model abstains from when that is measured, unless another image was sent meanwhile.
async function awaitPromise(turn) {
  var now;
  try { now = await ask('/facts'); } catch (error) { return; }
  if (turn !== asked) return;
  if (now.promise.state === 'measuring') { setTimeout(function () { awaitPromise(turn); }, 2000); return; }
  facts.promise = now.promise;
  photo.answer.attributes.forEach(function (one) {
    var limit = facts.promise.attributes[one.name];
    one.abstains = Boolean(limit) && (limit.threshold === null || !(one.confidence > limit.threshold));
  });
  showAnswer();
}

function showAnswer() {
  var place = by('attributes');
  place.replaceChildren.apply(place, photo.answer.attributes.map(attributePart));
  if (!photo.answer.attributes.length) place.append(make('p', {text: 'This model predicts no attribute.'}));
  var first = photo.answer.attributes.find(function (one) { return one.classes[0].map; });
  if (first) showMap(first, first.classes[0]);
  else showMap(null, null);
}

function attributePart(attribute) {
  var list = make('ul', {class: 'classes'});
  attribute.classes.slice(0, 5).forEach(function (one) { list.append(classLine(attribute, one)); });
  var parts = [make('h3', {text: shown(attribute.name)}), verdict(attribute), list];
  var rest = attribute.classes.slice(5);
  if (rest.length) {
    var more = make('details', {}, [
      make('summary', {text: count(rest.length + attribute.hidden, 'other class', 'other classes')}),
      make('ul', {class: 'classes'}, rest.map(function (one) { return classLine(attribute, one); }))
    ]);
    if (attribute.hidden) more.append(make('p', {class: 'soft', text: 'The least probable ' + attribute.hidden + ' are left out.'}));
    parts.push(more);
  }
  return make('div', {class: 'attribute'}, parts);
}

function verdict(attribute) {
  var label = attribute.predicted.map(shown).join(', ') || 'none of the values';
  var promise = facts.promise;
  if (!promise) return make('p', {class: 'verdict', text: label});
  var limit = promise.attributes[attribute.name];
  if (promise.state === 'measuring') {
    return make('p', {class: 'verdict', text: label}, [make('span', {class: 'soft',
      text: ' \u2013 what it abstains from is still being measured'})]);
  }
  if (!limit) return make('p', {class: 'verdict', text: label});
  var share = percent(promise.precision).replace('.0%', '%');
  var why;
  if (!attribute.abstains) why = ' \u2013 such labels are right in at least ' + share + ' of cases';
  else if (limit.threshold === null && limit.cells < limit.fewest) why = 'its ' + count(limit.cells, 'validation label', 'validation labels') +
    ' are too few to promise ' + share + ', which takes ' + limit.fewest;
  else if (limit.threshold === null) why = 'it errs too often on the validation split to promise ' + share;
  else why = percent(attribute.confidence) + ' is not above ' + percent(limit.threshold) + ', from which labels are right in at least ' + share + ' of cases';
  if (!attribute.abstains) return make('p', {class: 'verdict'}, [make('strong', {text: label}), make('span', {class: 'soft', text: why})]);
  return make('p', {class: 'verdict'}, [make('span', {class: 'unsure', text: 'Abstains'}), make('span', {class: 'soft', text: ': ' + why})]);
}

function classLine(attribute, one) {
  var bar = make('span', {class: 'bar'});
  bar.style.width = (100 * one.probability) + '%';
  var parts = [make('span', {text: shown(one.name)}), make('span', {'aria-hidden': 'true'}, [bar]), make('span', {class: 'number', text: percent(one.probability)})];
  var line = one.map ? make('button', {type: 'button', 'aria-pressed': 'false', on: function () { showMap(attribute, one); }}, parts)
    : make('span', {class: 'line'}, parts);
  line.classList.toggle('chosen', attribute.predicted.indexOf(one.name) >= 0);
  one.line = line;
  return make('li', {}, [line]);
}

// Draw what the model sees; with a map, veil in gray what does not speak for the class. Other colors stay as they are.
function showMap(attribute, one) {
  document.querySelectorAll('.classes button').forEach(function (line) { line.setAttribute('aria-pressed', String(Boolean(one) && line === one.line)); });
  var canvas = by('canvas'), pen = canvas.getContext('2d');
  canvas.width = photo.image.naturalWidth;
  canvas.height = photo.image.naturalHeight;
  pen.drawImage(photo.image, 0, 0);
  var size = photo.answer.size.join(' x ');
  by('plain').hidden = !one;
  if (!one) {
    canvas.setAttribute('aria-label', 'What the model sees');
    say('caption', 'What the model sees, ' + size + ' pixels of it. ' + (photo.answer.unmapped ? 'Where it looked is unknown: ' + photo.answer.unmapped + '.' : 'Press a class to see where it looked.'));
    return;
  }
  var rows = one.map.length, columns = one.map[0].length;
  var shade = make('canvas'), brush;
  shade.width = columns;
  shade.height = rows;
  brush = shade.getContext('2d');
  var points = brush.createImageData(columns, rows);
  one.map.forEach(function (row, y) { row.forEach(function (value, x) {
    points.data.set([128, 128, 128, 225 * (1 - value)], 4 * (y * columns + x));
  }); });
  brush.putImageData(points, 0, 0);
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = 'high';
  pen.drawImage(shade, 0, 0, canvas.width, canvas.height);
  var name = shown(attribute.name) + ': ' + shown(one.name);
  canvas.setAttribute('aria-label', 'What the model sees; the regions that speak most for ' + name + ' are clear');
  say('caption', 'Clear regions speak for ' + name + ' (Grad-CAM, ' + rows + ' x ' + columns + ' regions). The model sees ' + size + ' pixels.');
}

// similar images

function showFilters() {
  var place = by('filters');
  Object.keys(facts.index.values).forEach(function (name) {
    if (!facts.index.values[name].length) return;
    var list = make('select', {'data-name': name}, [make('option', {value: '', text: 'any'})].concat(
      facts.index.values[name].map(function (value) { return make('option', {value: '=' + value, text: shown(value)}); })));
    list.addEventListener('change', findSimilar);
    place.append(make('label', {text: shown(name)}, [list]));
  });
  by('similar').hidden = false;
}

async function findSimilar() {
  var turn = asked, words = new URLSearchParams();
  document.querySelectorAll('#filters select').forEach(function (list) { if (list.value) words.append('where', list.dataset.name + list.value); });
  var wanted = words.toString();
  by('similar').dataset.wanted = wanted;
  say('similar-error', '');
  try {
    var answer = await ask('/similar?' + wanted, photo.bytes, 'application/octet-stream');
    if (turn !== asked || by('similar').dataset.wanted !== wanted) return;
    var found = by('found');
    found.replaceChildren.apply(found, answer.images.map(function (one) {
      return make('li', {}, [
        make('img', {src: '/similar/' + one.row, alt: shown(one.name)}),
        make('div', {text: 'similarity ' + one.similarity.toFixed(3)})
      ].concat(one.labels.map(function (text) { return make('div', {text: shown(text)}); })).concat([make('div', {class: 'soft', text: shown(one.name)})]));
    }));
  } catch (error) {
    if (turn !== asked) return;
    by('found').replaceChildren();
    say('similar-error', error.message);
  }
}

// the camera

var stream = null;

async function openLens() {
  say('error', '');
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment'}});
  } catch (error) {
    say('error', 'The camera cannot be used (' + error.name + '): allow it in the browser, or choose a file.');
    return;
  }
  by('video').srcObject = stream;
  by('lens').hidden = false;
  await by('video').play();
  by('shoot').focus();
}

function closeLens() {
  if (stream) stream.getTracks().forEach(function (track) { track.stop(); });
  stream = null;
  by('video').srcObject = null;
  by('lens').hidden = true;
  by('camera').focus();
}

function shoot() {
  var video = by('video'), canvas = make('canvas');
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext('2d').drawImage(video, 0, 0);
  closeLens();
  canvas.toBlob(function (blob) { if (blob) read(blob, 'the photograph'); }, 'image/png');
}

// the queue

function showCount(answer) {
  by('progress').max = answer.cells;
  by('progress').value = answer.done;
  say('count', answer.done.toLocaleString('en') + ' of ' + answer.cells.toLocaleString('en') + ' labeled');
}

function undoable() { return memory('answered ' + facts.queue.answers) || []; }
function remember(list) { memory('answered ' + facts.queue.answers, list.slice(-1000)); by('undo').disabled = !list.length; }

async function nextCell(after) {
  var answer = await ask('/queue' + (after === null || after === undefined || after < 0 ? '' : '?after=' + after));
  showCount(answer);
  showCell(answer.cell);
}

function showCell(one) {
  cell = one;
  pending = null;
  chosen = [];
  by('cell').hidden = !one;
  by('other-class').value = '';
  by('undo').disabled = !undoable().length;
  if (!one) {
    say('queue-status', 'Every cell of the queue has a label.');
    return;
  }
  memory('at ' + facts.queue.answers, one.number - 1);
  var attribute = facts.queue.attributes[one.attribute];
  say('question', attribute.several ? 'Which ' + shown(one.attribute) + '?' : 'What is the ' + shown(one.attribute) + '?');
  say('cell-name', shown(one.name));
  var image = by('cell-image');
  image.alt = 'The image to label';
  image.src = '/queue/' + one.number + '/image';
  var guesses = by('guesses');
  guesses.replaceChildren.apply(guesses, one.guesses.map(function (guess, place) {
    return make('button', {type: 'button', on: function () { choose(place); }}, [
      make('kbd', {text: String(place + 1)}), make('span', {text: shown(guess.name)}),
      make('span', {class: 'number', text: guess.probability === null ? '' : percent(guess.probability)})]);
  }));
  if (attribute.several) guesses.querySelectorAll('button').forEach(function (button) { button.setAttribute('aria-pressed', 'false'); });
  by('classes').replaceChildren.apply(by('classes'), attribute.classes.map(function (name) { return make('option', {value: name}); }));
  say('other-label', attribute.several ? 'Another value' : 'Another class');
  say('save', attribute.several ? 'Save all' : 'Save');
  say('keys', 'Keys: ' + (one.guesses.length ? '1 to ' + one.guesses.length + ' for a guess, ' : '') + '/ for the text, ' +
    (attribute.several ? 'Enter to save (none chosen: none of the values), ' : '') + 'S to skip, U to undo.');
}

function choose(place) {
  if (!cell || place >= cell.guesses.length) return;
  var name = cell.guesses[place].name;
  if (!facts.queue.attributes[cell.attribute].several) { label([name]); return; }
  var at = chosen.indexOf(name);
  if (at < 0) chosen.push(name);
  else chosen.splice(at, 1);
  by('guesses').querySelectorAll('button')[place].setAttribute('aria-pressed', String(at < 0));
}

async function attempt(act) {
  if (busy) return;
  busy = true;
  say('queue-error', '');
  try { await act(); } catch (error) { say('queue-error', error.message); }
  busy = false;
}

function label(values) {
  return attempt(async function () {
    if (!cell) return;
    var one = cell, wanted = JSON.stringify(values);
    var answer = await send('/queue/' + one.number + '/label', {values: values, new: pending === wanted});
    if (answer.unknown) {
      pending = wanted;
      say('queue-error', shown(answer.unknown) + ' Save again to add it.');
      return;
    }
    showCount(answer);
    if (answer.written) remember(undoable().filter(function (number) { return number !== one.number; }).concat([one.number]));
    say('queue-status', shown(one.attribute) + ': ' + shown(answer.label) +
      (answer.written ? ', saved.' : ', which another tab or program had saved. It stays.'));
    await nextCell(one.number);
    by('question').focus({preventScroll: true});
  });
}

function saveForm() {
  if (!cell) return;
  var typed = by('other-class').value.trim();
  if (!facts.queue.attributes[cell.attribute].several) { if (typed) label([typed]); return; }
  label(chosen.concat(typed ? [typed] : []));
}

function skip() { return attempt(async function () { if (cell) { say('queue-status', 'Skipped.'); await nextCell(cell.number); } }); }

function undo() {
  return attempt(async function () {
    var list = undoable();
    if (!list.length) return;
    var answer = await send('/queue/' + list[list.length - 1] + '/undo', {});
    remember(list.slice(0, -1));
    showCount(answer);
    say('queue-status', 'Undone: ' + shown(answer.cell.attribute) + ' of this image has no label again.');
    showCell(answer.cell);
    by('question').focus({preventScroll: true});
  });
}

function onKey(event) {
  if (by('queue').hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  var typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (typing) { if (event.key === 'Escape') by('question').focus(); return; }
  var act = null;
  if (/^[1-9]$/.test(event.key)) act = function () { choose(Number(event.key) - 1); };
  else if (event.key === 's' || event.key === 'S') act = skip;
  else if (event.key === 'u' || event.key === 'U') act = undo;
  else if (event.key === '/') act = function () { by('other-class').focus(); };
  else if (event.key === 'Enter' && event.target.tagName !== 'BUTTON' && event.target.tagName !== 'A') act = saveForm;
  if (act) { event.preventDefault(); act(); }
}

// the tabs

function openTab(name) {
  ['photo', 'queue'].forEach(function (one) {
    var tab = by('tab-' + one);
    tab.setAttribute('aria-selected', String(one === name));
    tab.tabIndex = one === name ? 0 : -1;
    by(one).hidden = one !== name;
  });
  if (facts.queue) history.replaceState(null, '', '#' + name);
}

function setUp() {
  by('choose').addEventListener('click', function () { by('file').click(); });
  by('file').addEventListener('change', function (event) {
    if (event.target.files[0]) read(event.target.files[0], event.target.files[0].name);
    event.target.value = '';
  });
  by('camera').hidden = !(navigator.mediaDevices && navigator.mediaDevices.getUserMedia);
  by('camera').addEventListener('click', openLens);
  by('shoot').addEventListener('click', shoot);
  by('close-lens').addEventListener('click', closeLens);
  by('plain').addEventListener('click', function () { showMap(null, null); });
  document.addEventListener('paste', function (event) {
    var file = Array.from(event.clipboardData.files)[0];
    if (file && !by('photo').hidden) { event.preventDefault(); read(file, file.name); }
  });
  var within = 0;
  document.addEventListener('dragenter', function () { within += 1; by('drop').classList.add('over'); });
  document.addEventListener('dragleave', function () { within -= 1; if (!within) by('drop').classList.remove('over'); });
  document.addEventListener('dragover', function (event) { event.preventDefault(); });
  document.addEventListener('drop', function (event) {
    event.preventDefault();
    within = 0;
    by('drop').classList.remove('over');
    var file = event.dataTransfer.files[0];
    if (file) { if (facts.queue) openTab('photo'); read(file, file.name); }
    else say('error', 'What was dropped is no file: save the image first, and drop that.');
  });
}

function setUpQueue() {
  by('tabs').hidden = false;
  var tabs = [by('tab-photo'), by('tab-queue')];
  tabs.forEach(function (tab, place) {
    tab.addEventListener('click', function () { openTab(tab.id.slice(4)); });
    tab.addEventListener('keydown', function (event) {
      if (event.key !== 'ArrowLeft' && event.key !== 'ArrowRight') return;
      tabs[1 - place].focus();
      openTab(tabs[1 - place].id.slice(4));
    });
  });
  by('other').addEventListener('submit', function (event) { event.preventDefault(); saveForm(); });
  by('other-class').addEventListener('input', function () { pending = null; });
  by('skip').addEventListener('click', skip);
  by('undo').addEventListener('click', undo);
  by('cell-image').addEventListener('error', function () { if (cell) say('queue-error', 'The image is not there, or cannot be read: skip it.'); });
  document.addEventListener('keydown', onKey);
  say('place', 'Answers: ' + shown(facts.queue.answers));
  openTab(location.hash === '#queue' ? 'queue' : 'photo');
  return attempt(function () { return nextCell(memory('at ' + facts.queue.answers)); });
}

async function start() {
  try { facts = await ask('/facts'); } catch (error) { say('about', error.message); return; }
  var names = Object.keys(facts.attributes).map(function (name) { return shown(name) + ' (' + facts.attributes[name] + ')'; }).join(', ');
  say('about', facts.model + ' from ' + shown(facts.checkpoint) + ' predicts ' + (names || 'no attribute') + '. Its probabilities are ' +
    (facts.calibrated ? 'calibrated.' : 'as trained: the checkpoint has no calibration.') +
    (facts.promise && facts.promise.state === 'none' ? ' It abstains from nothing: ' + facts.promise.reason + '.' : ''));
  setUp();
  if (facts.index) showFilters();
  if (facts.queue) await setUpQueue();
  document.body.dataset.ready = 'true';
}

start();
