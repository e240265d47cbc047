// Loaded by the dashboard's page after asv.js; see finish_dashboard.py.
'use strict';

// Data come from scripts, which a page that was opened from a folder may load, unlike JSON. Files
// that do not exist are not asked for: the browser would complain.
$.ajaxTransport('+json', function (options) {
    var script = document.createElement('script');
    return {
        send: function (headers, complete) {
            var path = options.url.split('?')[0];
            var files = $.asv.main_json.files; // known once index.json has been loaded
            if (files && files.indexOf(decodeURIComponent(path)) === -1) {
                complete(404, 'not published');
                return;
            }
            script.onload = function () {
                complete(200, 'success', {json: script.json});
            };
            script.onerror = function () {
                complete(404, 'not found');
            };
            script.src = options.url.replace(path, path + '.js');
            document.head.appendChild(script);
        },
        abort: function () {
            script.onload = script.onerror = null;
        }
    };
});

// By asking for this file asv finds out whether the server is there, if a curve is not.
$.ajaxTransport('+text', function (options) {
    if (/^swallow\.ico/.test(options.url)) {
        return {
            send: function (headers, complete) {
                complete(200, 'success', {text: ''});
            },
            abort: function () {}
        };
    }
});

$(document).ready(function () {
    function say(text) {
        $('#myModalLabel').text('Nothing to draw');
        $('#error-message').text(text);
        $('#error').modal('show');
    }

    function with_default_scale(show) {
        return function (params) {
            var name = params.benchmark;
            var benchmark = $.asv.main_json.benchmarks[name];
            if (!benchmark) {
                // asv links commits to '#' and their hash if it has no address for them.
                var is_commit = /^[0-9a-f]{8,40}$/.test(name);
                say(is_commit ? 'Commit ' + name + ': git show ' + name
                              : 'There are no results of ' + name + '.');
                return;
            }
            if (!params['y-axis-scale']) {
                params['y-axis-scale'] = [benchmark.log_scale ? 'log' : 'linear'];
            }
            if (!params['show-legend'] && window.innerWidth < 800) {
                params['show-legend'] = ['false']; // it would cover the curves
            }
            show(params);
        };
    }

    // asv writes three digits, in which small changes do not show.
    var pretty_unit = $.asv.pretty_unit;
    $.asv.pretty_unit = function (value, unit) {
        var is_asvs = unit === 'seconds' || unit === 'bytes';
        return is_asvs ? pretty_unit(value, unit) : Number(value.toPrecision(6)) + ' ' + unit;
    };

    // After asv has made this function, and before its pages call it.
    var register_page = $.asv.register_page;
    $.asv.register_page = function (name, show) {
        register_page(name, name === 'graphdisplay' ? with_default_scale(show) : show);
    };
});
