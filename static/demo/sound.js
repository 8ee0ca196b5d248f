// The sound of an alert: two soft tones, made here, so that no file is loaded.
// Promises: never louder than a word; a browser that does not allow sound yet stays silent, without an error.

const TONES_HZ = [660, 880];
const TONE_SECONDS = 0.14;
let context = null;

export function playTone() {
  try {
    context ??= new AudioContext();
    if (context.state === 'suspended') void context.resume().catch(() => {});
    TONES_HZ.forEach((hertz, at) => tone(hertz, context.currentTime + at * TONE_SECONDS));
  } catch {
    // No sound here.
  }
}

function tone(hertz, start) {
  const source = new OscillatorNode(context, { frequency: hertz });
  const loudness = new GainNode(context, { gain: 0 });
  loudness.gain.linearRampToValueAtTime(0.08, start + 0.02);
  loudness.gain.linearRampToValueAtTime(0, start + TONE_SECONDS);
  source.connect(loudness).connect(context.destination);
  source.start(start);
  source.stop(start + TONE_SECONDS);
}
