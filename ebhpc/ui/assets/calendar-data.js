// A platform's calendar as it comes (columns of integers) to what is drawn: one item for each node that a span takes, in
// typed arrays sorted by row, each with its place among the cores of its node.

export const KIND = { running: 0, waiting: 1, reservation: 2, maintenance: 3, promise: 4, offer: 5 };
export const KIND_NAMES = ["Running job", "Waiting job, as planned", "Reservation", "Maintenance", "Promised by ebhpc", "Offered by ebhpc"];

export function decodeCalendar(doc) {
  const origin = Date.parse(doc.start) / 1000;
  const names = doc.nodes;
  const { rowOf, placeOf, groups } = arrange(doc);
  const spans = doc.spans;
  const count = spans.first.length;
  let total = 0;
  for (let i = 0; i < count; i += 1) total += spans.count[i];
  const rows = names.length;
  const cores = Float64Array.from(placeOf, (place) => doc.cores[place]);
  const made = {
    row: new Int32Array(total), start: new Float64Array(total), end: new Float64Array(total), expected: new Float64Array(total),
    cores: new Float32Array(total), kind: new Uint8Array(total), span: new Int32Array(total), low: new Float32Array(total), high: new Float32Array(total),
  };
  // Counting sort by row: spans come sorted by place and start, so that within a row starts ascend almost always
  const begin = new Int32Array(rows + 1);
  for (let i = 0, place = 0; i < count; i += 1) {
    place += spans.first[i];
    for (let k = 0; k < spans.count[i]; k += 1) begin[rowOf[place + k] + 1] += 1;
  }
  for (let r = 0; r < rows; r += 1) begin[r + 1] += begin[r];
  const next = begin.slice(0, rows);
  const order = Array.from({ length: count }, (_, i) => i).sort((a, b) => spans.start[a] - spans.start[b]);
  const firsts = new Int32Array(count);
  for (let i = 0, place = 0; i < count; i += 1) { place += spans.first[i]; firsts[i] = place; }
  for (const i of order) {
    const start = origin + spans.start[i];
    const end = start + spans.length[i];
    for (let k = 0; k < spans.count[i]; k += 1) {
      const row = rowOf[firsts[i] + k];
      const at = next[row];
      next[row] += 1;
      made.row[at] = row; made.start[at] = start; made.end[at] = end; made.cores[at] = spans.cores[i];
      made.kind[at] = spans.kind[i]; made.span[at] = i;
      made.expected[at] = spans.kind[i] === KIND.running && spans.expected[i] ? Math.min(start + spans.expected[i], end) : end;
    }
  }
  const calendar = {
    platform: doc.platform, taken: Date.parse(doc.taken) / 1000, start: origin, end: Date.parse(doc.end) / 1000,
    rows, names: placeOf.map((place) => names[place]), cores, memory: placeOf.map((place) => doc.memory[place]),
    states: doc.states ? placeOf.map((place) => doc.states[place]) : null, groups, begin, items: made, total,
    label: (item) => (doc.labels && spans.label ? doc.labels[spans.label[made.span[item]]] : ""),
    session: (item) => (doc.sessions && spans.session ? doc.sessions[spans.session[made.span[item]]] : ""),
    nodesOf: (item) => spans.count[made.span[item]],
    rowByName: new Map(placeOf.map((place, row) => [names[place], row])),
  };
  for (let row = 0; row < rows; row += 1) stack(calendar, row);
  return calendar;
}

// Rows by partition: a node that is in several stands with the first of them. Nodes in none stand last.
function arrange(doc) {
  const rows = doc.nodes.length;
  const group = new Int32Array(rows).fill(doc.partitions.length);
  doc.partitions.forEach((partition, number) => {
    for (const [first, length] of partition.runs) {
      for (let place = first; place < first + length; place += 1) if (group[place] === doc.partitions.length) group[place] = number;
    }
  });
  const placeOf = Array.from({ length: rows }, (_, place) => place).sort((a, b) => group[a] - group[b] || a - b);
  const rowOf = new Int32Array(rows);
  placeOf.forEach((place, row) => { rowOf[place] = row; });
  const groups = [];
  placeOf.forEach((place, row) => {
    const name = doc.partitions[group[place]]?.name ?? (doc.partitions.length ? "other nodes" : "");
    if (!groups.length || groups.at(-1).name !== name) groups.push({ name, first: row, last: row });
    groups.at(-1).last = row;
  });
  return { rowOf, placeOf, groups };
}

// Give each item of a row its place among the cores: the lowest where it fits beside those that overlap it in time.
function stack(calendar, row) {
  const { items, begin, cores } = calendar;
  const whole = Math.max(cores[row], 1);
  let active = [];
  for (let at = begin[row]; at < begin[row + 1]; at += 1) {
    const kind = items.kind[at];
    const wide = Math.min(items.cores[at] || whole, whole);
    if (kind === KIND.reservation || kind === KIND.maintenance) {
      items.low[at] = 0;
      items.high[at] = wide / whole;
      continue;
    }
    active = active.filter((other) => items.end[other] > items.start[at]);
    const low = lowest(active.map((other) => [items.low[other] * whole, items.high[other] * whole]), wide, whole);
    items.low[at] = low / whole;
    items.high[at] = (low + wide) / whole;
    active.push(at);
  }
}

function lowest(taken, wide, whole) {
  let low = 0;
  for (const [from, to] of taken.sort((a, b) => a[0] - b[0])) {
    if (from - low >= wide - 1e-6) return low;
    low = Math.max(low, to);
  }
  return Math.max(Math.min(low, whole - wide), 0);
}

// Where a share that is not in the calendar would be drawn: beside what overlaps it.
export function placeAmong(calendar, row, start, end, wide) {
  const { items, begin, cores } = calendar;
  const whole = Math.max(cores[row], 1);
  const taken = [];
  for (let at = begin[row]; at < begin[row + 1]; at += 1) {
    const kind = items.kind[at];
    if (kind !== KIND.reservation && kind !== KIND.maintenance && items.start[at] < end && items.end[at] > start) {
      taken.push([items.low[at] * whole, items.high[at] * whole]);
    }
  }
  const low = lowest(taken, Math.min(wide, whole), whole);
  return [low / whole, Math.min(low + wide, whole) / whole];
}

// The cores taken in each of `bins` equal parts of an interval, by kind: the mean over each part.
export function occupancy(calendar, start, end, bins) {
  const { items, total } = calendar;
  const step = (end - start) / bins;
  const found = KIND_NAMES.map(() => new Float64Array(bins));
  for (let at = 0; at < total; at += 1) {
    const from = Math.max(items.start[at], start);
    const to = Math.min(items.end[at], end);
    if (to <= from) continue;
    const plane = found[items.kind[at]];
    for (let bin = Math.floor((from - start) / step); bin < bins && start + bin * step < to; bin += 1) {
      const overlap = Math.min(to, start + (bin + 1) * step) - Math.max(from, start + bin * step);
      plane[bin] += (items.cores[at] * overlap) / step;
    }
  }
  return found;
}
