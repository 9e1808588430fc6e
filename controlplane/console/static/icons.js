// The icons of the pages: strokes on a grid of 24.

import { svg } from "./dom.js";

const STROKES = {
  overview: "M3 20h18M6 16v-5M11 16V6M16 16v-8M20 16v-3",
  jobs: "M4 6h16M4 12h16M4 18h10",
  runners: "M5 5h14v6H5zM5 13h14v6H5zM8 8h.01M8 16h.01M12 8h4M12 16h4",
  truths: "M12 3l8 4.5v9L12 21l-8-4.5v-9zM8.5 12l2.5 2.5 4.5-5",
  events: "M4 7h11M4 12h16M4 17h7M19 5v4M14 15v4",
  controls: "M5 4v6M5 14v6M12 4v10M12 18v2M19 4v3M19 11v9M3 12h4M10 16h4M17 9h4",
  deadletters: "M3 7h18v11H3zM3 7l9 7 9-7M9 18l-6 3M15 18l6 3",
  audit: "M12 3l7 3v6c0 4.5-3 7.5-7 9-4-1.5-7-4.5-7-9V6zM9 12l2 2 4-4",
  query: "M4 6l5 6-5 6M12 18h8",
};

export const icon = (name) => svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, svg("path", { d: STROKES[name] ?? "" }));
