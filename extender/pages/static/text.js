// Numbers and times as people read them. Sizes come in MiB.

const whole = new Intl.NumberFormat("en-US");
const tenths = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1 });

export const count = (number) => whole.format(number);

/** "3 pods", "1 pod". */
export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

/** "512 MiB", "14.5 GiB", "3.1 TiB". */
export function size(mib) {
  const [value, unit] = scaled(mib, mib);
  return `${value} ${unit}`;
}

/** "11.2 of 40 GiB": both in the unit of the second, unless the first would be lost in it. */
export function part(mib, ofMib) {
  const [value, unit] = scaled(mib, ofMib);
  const [whole_, unitOfWhole] = scaled(ofMib, ofMib);
  return unit === unitOfWhole ? `${value} of ${whole_} ${unit}` : `${value} ${unit} of ${whole_} ${unitOfWhole}`;
}

function scaled(mib, by) {
  if (mib > 0 && mib < 1024) return [count(mib), "MiB"];
  if (by >= 10240 * 1024 && mib !== 0 && mib < 100 * 1024) return [tenths.format(mib / 1024), "GiB"];
  if (by >= 10240 * 1024) return [tenths.format(mib / 1024 / 1024), "TiB"];
  return [tenths.format(mib / 1024), "GiB"];
}

export function percent(value, of) {
  return of > 0 ? `${Math.round((100 * value) / of)} %` : "–";
}

/** "40 s", "5 min", "3 h", "2 days". */
export function duration(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

/** "20:14:03", with the date where it is not of today. */
export function clock(date) {
  const time = date.toLocaleTimeString("en-GB");
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString("en-CA")} ${time}`;
}
