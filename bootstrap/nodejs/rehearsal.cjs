"use strict";

exports.handler = () => undefined;
