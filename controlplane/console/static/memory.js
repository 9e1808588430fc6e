// What a page remembers for as long as the console is open: the node that is looked at, the lag that was seen.

const kept = new Map();

export const recall = (key, otherwise = null) => (kept.has(key) ? kept.get(key) : otherwise);

export function remember(key, value) {
  if (kept.size > 500) kept.delete(kept.keys().next().value);
  kept.delete(key);
  kept.set(key, value);
  return value;
}

export function sample(key, value, limit = 300) {
  // Keep a series of what was seen, with its moments.
  const series = recall(key, []);
  series.push({ at: Date.now(), value });
  if (series.length > limit) series.shift();
  return remember(key, series);
}
