// Numbers and times as people read them.

/** A signed number with a true minus, such as "+0.42"; a dash for none. */
export function signed(value, digits = 2) {
  if (value === null || Number.isNaN(value)) return "–";
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? "−" : "+") + text;
}

/** "35 %". */
export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

/** Clock time, with seconds. */
export function clock(ms) {
  return new Date(ms).toLocaleTimeString([], { hour12: false });
}

/** Clock time without seconds. */
export function clockShort(ms) {
  return new Date(ms).toLocaleTimeString([], { hour12: false, hour: "2-digit", minute: "2-digit" });
}

/** How long ago, roughly: "12 s", "3 min". */
export function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 90) return `${s} s`;
  return s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
}

const REASONS = { no_voice_and_no_face: "no voice and no face", warming_up: "warming up" };

/** Why there is no valence. */
export function reasonText(reason) {
  return REASONS[reason] ?? String(reason ?? "no value").replaceAll("_", " ");
}

/** The trend in words; below 0.02 per second it is steady. */
export function trendText(trend) {
  if (trend === null) return "";
  if (Math.abs(trend) < 0.02) return "→ steady";
  return `${trend > 0 ? "↗ rising" : "↘ falling"} ${signed(trend)} per s`;
}

/** What the interval allows to say. */
export function intervalMeaning(low, high) {
  if (low === null) return "";
  if (low > 0) return "positive";
  return high < 0 ? "negative" : "could be either sign";
}

export function facesText(faces) {
  return faces === 0 ? "no face" : faces === 1 ? "face" : `${faces} faces`;
}
