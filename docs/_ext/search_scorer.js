// How Sphinx's search ranks. The numbers are its own; only the function is ours.
var Scorer = {
  // A page that explains comes before the glossary, and what users read before the internals.
  score: ([page, , , , score]) => score - (/^(glossary$|internals\/)/.test(page) ? 2 : 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
