// What is drawn on: strokes of everyone, each in the colour of its person.
// Promises: strokes of others are numbers within bounds or are left out; how many are kept is bounded; drawn anew when the
// colours of the page change.
export const SIDE = 1000;
const STROKES_MAX = 400;
const POINTS_MAX = 200;

export function createSurface(canvas) {
  const pen = canvas.getContext('2d');
  const strokes = new Map();
  const dark = matchMedia('(prefers-color-scheme: dark)');

  const colour = (who) => {
    const hue = [...who].reduce((sum, letter) => (sum * 31 + (letter.codePointAt(0) ?? 0)) % 360, 7);
    return `hsl(${hue} 65% ${dark.matches ? 65 : 40}%)`;
  };

  function line(who, points) {
    if (points.length === 0) return;
    pen.strokeStyle = colour(who);
    pen.lineWidth = 5;
    pen.lineCap = pen.lineJoin = 'round';
    pen.beginPath();
    pen.moveTo(...points[0]);
    for (const point of points.length === 1 ? points : points.slice(1)) pen.lineTo(...point);
    pen.stroke();
  }

  function draw(who, { id, points }) {
    strokes.set(`${who} ${id}`, { who, points: [...points] });
    if (strokes.size > STROKES_MAX) strokes.delete(strokes.keys().next().value);
    line(who, points);
  }

  const isPoint = (point) => Array.isArray(point) && point.length === 2 && point.every((value) => Number.isFinite(value) && value >= 0 && value <= SIDE);

  function take(who, given) {
    if (!Array.isArray(given)) return;
    for (const stroke of given.slice(0, 2)) {
      if (Number.isFinite(stroke?.id) && Array.isArray(stroke.points) && stroke.points.length <= POINTS_MAX && stroke.points.every(isPoint)) draw(who, stroke);
    }
  }

  function redraw() {
    pen.clearRect(0, 0, SIDE, SIDE);
    for (const { who, points } of strokes.values()) line(who, points);
  }

  function clear() {
    strokes.clear();
    redraw();
  }

  dark.addEventListener('change', redraw);
  return { draw, take, clear, close: () => dark.removeEventListener('change', redraw) };
}
