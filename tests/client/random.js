// Seeded random numbers for the client tests. The same seed gives the same cuts, sizes and choices again, so a
// failure that prints its seed can be repeated with TIDINGS_SEED. Never used for anything secret.

/** A generator of numbers in [0, 1): mulberry32, 32 bits of state. */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A whole number from low to high, both included. */
export function between(random, low, high) {
  return low + Math.floor(random() * (high - low + 1));
}

export function pick(random, choices) {
  return choices[between(random, 0, choices.length - 1)];
}

/** TIDINGS_SEED, or a fresh seed that the caller must print. */
export function chosenSeed() {
  const given = process.env.TIDINGS_SEED;
  return given ? Number(given) : Math.floor(Math.random() * 2 ** 32);
}
