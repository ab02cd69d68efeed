// The chart library writes style attributes and style elements, which the page's Content-Security-Policy forbids. Loaded
// before it, this turns the attributes into property writes, which the policy allows, and keeps the elements (rules for
// maps, which no page has) from being made. So the policy needs no exception.
"use strict";

(() => {
  const set = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function setAttribute(name, value) {
    if (name === "style") this.style.cssText = value;
    else set.call(this, name, value);
  };
  const make = document.createElement;
  document.createElement = function createElement(name, options) {
    return make.call(document, name === "style" ? "template" : name, options);
  };
})();
