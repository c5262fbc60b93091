"""What of a new release would break the clients of the old one, told from the OpenAPI documents of the two."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from slipway.host.openapi import breaking_changes


def fields(needed: str = "", closed: bool = False, **properties: Any) -> dict[str, Any]:
    """A model as Pydantic documents it."""
    schema = {"type": "object", "properties": properties, "required": needed.split()}
    return {**schema, "additionalProperties": False} if closed else schema


STRING = {"type": "string"}
INTEGER = {"type": "integer"}
NUMBER = {"type": "number"}
NULL = {"type": "null"}
TREE = {"$ref": "#/components/schemas/Tree"}
LEAF = {"$ref": "#/components/schemas/Leaf"}
LOOP = {"$ref": "#/components/schemas/Loop"}
KNOT = {"$ref": "#/components/schemas/Knot"}
BOND = {"$ref": "#/components/schemas/Bond"}
CAT = {"title": "Cat", "properties": {"kind": {"const": "cat"}, "lives": INTEGER}, "required": ["kind", "lives"]}
DOG = {"title": "Dog", "properties": {"kind": {"const": "dog"}, "barks": INTEGER}, "required": ["kind", "barks"]}
COMPONENTS = {
    "schemas": {
        "Tree": {"type": "object", "properties": {"children": {"type": "array", "items": TREE}, "leaf": LEAF}},
        "Leaf": {"type": "object", "properties": {"size": INTEGER}, "required": ["size"]},
        "Loop": LOOP,
        "Ring": {"anyOf": [{"$ref": "#/components/schemas/Ring"}, {"$ref": "#/components/schemas/Ring"}, STRING]},
        # On each way down, each of the two is met together with the other.
        "Knot": {"allOf": [fields(left=KNOT, right=BOND)], "properties": {"left": BOND, "right": KNOT}},
        "Bond": {"allOf": [fields(left=BOND, right=KNOT)], "properties": {"left": KNOT, "right": BOND}},
        "a/b~c": STRING,
    },
    "securitySchemes": {
        "Bearer": {"type": "http", "scheme": "bearer"},
        "OAuth": {"type": "oauth2", "flows": {"password": {"tokenUrl": "token"}}},
        "Basic": {"type": "http", "scheme": "basic"},
        "Key": {"type": "apiKey", "in": "header", "name": "X-Key"},
    },
    "parameters": {"Page": {"name": "page", "in": "query", "schema": INTEGER}},
}


def items(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": schema, **more}


def either(*schemas: Any, **more: Any) -> dict[str, Any]:
    return {"anyOf": list(schemas), **more}


def listing(*values: Any, **more: Any) -> dict[str, Any]:
    return {"enum": list(values), **more}


def content(schema: Any, kind: str = "application/json") -> dict[str, Any]:
    return {"content": {kind: {"schema": schema}}}


def document(operation: Any = None, path: str = "/x", method: str = "post", **more: Any) -> dict[str, Any]:
    return {"openapi": "3.1.0", "paths": {path: {method: operation or {}}}, "components": COMPONENTS, **more}


def sends(schema: Any, kind: str = "application/json", **more: Any) -> dict[str, Any]:
    return document({"requestBody": {**content(schema, kind), **more}})


def answers(schema: Any, kind: str = "application/json", status: str = "200") -> dict[str, Any]:
    return document({"responses": {status: content(schema, kind), "422": content({"enum": [id(schema)]})}})


def asks(*parameters: Any) -> dict[str, Any]:
    return document({"parameters": list(parameters)})


def parameter(name: str, schema: Any = STRING, where: str = "query", required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "schema": schema}


def secured(*security: Any) -> dict[str, Any]:
    return document({"security": list(security)})


# As FastAPI 0.165 writes them, without the answers 422.
LIVE = """
{"openapi":"3.1.0","info":{"title":"Shop","version":"1"},"paths":{"/items":{"get":{"summary":"Items",
"operationId":"items_items_get","parameters":[{"name":"limit","in":"query","required":false,"schema":{"type":"integer",
"maximum":100,"minimum":1,"default":10,"title":"Limit"}},{"name":"q","in":"query","required":false,"schema":{"type":"array",
"items":{"type":"string"},"default":[],"title":"Q"}}],"responses":{"200":{"description":"Successful Response","content":{
"application/json":{"schema":{"type":"array","items":{"$ref":"#/components/schemas/Item"},
"title":"Response Items Items Get"}}}}}}},"/items/{item_id}":{"get":{"summary":"Item","operationId":"item_items__item_id__get",
"parameters":[{"name":"item_id","in":"path","required":true,"schema":{"type":"integer","title":"Item Id"}}],"responses":{"200":{
"description":"Successful Response","content":{"application/json":{"schema":{"$ref":"#/components/schemas/Item"}}}}}},"delete":{
"summary":"Remove","operationId":"remove_items__item_id__delete","parameters":[{"name":"item_id","in":"path","required":true,
"schema":{"type":"integer","title":"Item Id"}}],"responses":{"204":{"description":"Successful Response"}}}},"/orders":{"post":{
"summary":"Order","operationId":"order_orders_post","requestBody":{"content":{"application/json":{"schema":{
"$ref":"#/components/schemas/Order-Input"}}},"required":true},"responses":{"201":{"description":"Successful Response",
"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Order-Output"}}}}}}},"/logo":{"put":{"summary":"Logo",
"operationId":"logo_logo_put","requestBody":{"content":{"multipart/form-data":{"schema":{
"$ref":"#/components/schemas/Body_logo_logo_put"}}},"required":true},"responses":{"200":{"description":"Successful Response",
"content":{"application/json":{"schema":{"additionalProperties":{"type":"string"},"type":"object",
"title":"Response Logo Logo Put"}}}}}}}},"components":{"schemas":{"Body_logo_logo_put":{"properties":{"file":{"type":"string",
"contentMediaType":"application/octet-stream","title":"File"}},"type":"object","required":["file"],
"title":"Body_logo_logo_put"},"Card":{"properties":{"kind":{"type":"string","const":"card","title":"Kind"},"digits":{
"type":"string","pattern":"^[0-9]{16}$","title":"Digits"}},"type":"object","required":["kind","digits"],"title":"Card"},"Cash":{
"properties":{"kind":{"type":"string","const":"cash","title":"Kind"}},"type":"object","required":["kind"],"title":"Cash"},
"Customer":{"properties":{"name":{"type":"string","maxLength":50,"minLength":1,"title":"Name"},"birthday":{"anyOf":[{
"type":"string","format":"date"},{"type":"null"}],"title":"Birthday"}},"type":"object","required":["name"],"title":"Customer"},
"Item":{"properties":{"id":{"type":"integer","title":"Id"},"price":{"type":"number","title":"Price"},"note":{"anyOf":[{
"type":"string"},{"type":"null"}],"title":"Note"}},"type":"object","required":["id","price"],"title":"Item"},"Order-Input":{
"properties":{"customer":{"$ref":"#/components/schemas/Customer"},"pay":{"oneOf":[{"$ref":"#/components/schemas/Card"},{
"$ref":"#/components/schemas/Cash"}],"title":"Pay","discriminator":{"propertyName":"kind","mapping":{
"card":"#/components/schemas/Card","cash":"#/components/schemas/Cash"}}},"size":{"$ref":"#/components/schemas/Size",
"default":"m"},"part":{"anyOf":[{"$ref":"#/components/schemas/Part-Input"},{"type":"null"}]}},"type":"object","required":[
"customer","pay"],"title":"Order"},"Order-Output":{"properties":{"customer":{"$ref":"#/components/schemas/Customer"},"pay":{
"oneOf":[{"$ref":"#/components/schemas/Card"},{"$ref":"#/components/schemas/Cash"}],"title":"Pay","discriminator":{
"propertyName":"kind","mapping":{"card":"#/components/schemas/Card","cash":"#/components/schemas/Cash"}}},"size":{
"$ref":"#/components/schemas/Size","default":"m"},"part":{"anyOf":[{"$ref":"#/components/schemas/Part-Output"},{
"type":"null"}]}},"type":"object","required":["customer","pay"],"title":"Order"},"Part-Input":{"properties":{"weight":{
"type":"number","title":"Weight"},"parts":{"items":{"$ref":"#/components/schemas/Part-Input"},"type":"array","title":"Parts",
"default":[]}},"type":"object","required":["weight"],"title":"Part"},"Part-Output":{"properties":{"weight":{"type":"number",
"title":"Weight"},"parts":{"items":{"$ref":"#/components/schemas/Part-Output"},"type":"array","title":"Parts","default":[]}},
"type":"object","required":["weight"],"title":"Part"},"Size":{"type":"string","enum":["s","m"],"title":"Size"}}}}
"""
CANDIDATE = """
{"openapi":"3.1.0","info":{"title":"Shop","version":"1"},"paths":{"/items":{"get":{"summary":"Items",
"operationId":"items_items_get","parameters":[{"name":"limit","in":"query","required":false,"schema":{"type":"integer",
"maximum":50,"minimum":1,"default":10,"title":"Limit"}},{"name":"q","in":"query","required":false,"schema":{"type":"array",
"items":{"type":"string"},"default":[],"title":"Q"}}],"responses":{"200":{"description":"Successful Response","content":{
"application/json":{"schema":{"type":"array","items":{"$ref":"#/components/schemas/Item"},
"title":"Response Items Items Get"}}}}}}},"/items/{id}":{"get":{"summary":"Item","operationId":"item_items__id__get",
"parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"integer","title":"Id"}},{"name":"x-tenant",
"in":"header","required":true,"schema":{"type":"string","title":"X-Tenant"}}],"responses":{"200":{
"description":"Successful Response","content":{"application/json":{"schema":{"$ref":"#/components/schemas/Item"}}}}}}},
"/orders":{"post":{"summary":"Order","operationId":"order_orders_post","requestBody":{"content":{"application/json":{"schema":{
"$ref":"#/components/schemas/Order-Input"}}},"required":true},"responses":{"201":{"description":"Successful Response",
"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Order-Output"}}}}},"security":[{"HTTPBearer":[]}]}},
"/logo":{"put":{"summary":"Logo","operationId":"logo_logo_put","requestBody":{"content":{"multipart/form-data":{"schema":{
"$ref":"#/components/schemas/Body_logo_logo_put"}}},"required":true},"responses":{"200":{"description":"Successful Response",
"content":{"application/json":{"schema":{"additionalProperties":{"type":"string"},"type":"object",
"title":"Response Logo Logo Put"}}}}}}}},"components":{"schemas":{"Body_logo_logo_put":{"properties":{"file":{"type":"string",
"contentMediaType":"application/octet-stream","title":"File"}},"type":"object","required":["file"],
"title":"Body_logo_logo_put"},"Card":{"properties":{"kind":{"type":"string","const":"card","title":"Kind"},"digits":{
"type":"string","pattern":"^[0-9]{16}$","title":"Digits"}},"type":"object","required":["kind","digits"],"title":"Card"},
"Customer":{"properties":{"name":{"type":"string","maxLength":40,"minLength":1,"title":"Name"},"birthday":{"anyOf":[{
"type":"string","format":"date"},{"type":"null"}],"title":"Birthday"},"email":{"type":"string","title":"Email"}},
"type":"object","required":["name","email"],"title":"Customer"},"Item":{"properties":{"id":{"type":"integer","title":"Id"},
"note":{"anyOf":[{"type":"string"},{"type":"null"}],"title":"Note","default":""}},"type":"object","required":["id"],
"title":"Item"},"Order-Input":{"properties":{"customer":{"$ref":"#/components/schemas/Customer"},"pay":{
"$ref":"#/components/schemas/Card"},"size":{"$ref":"#/components/schemas/Size","default":"m"},"part":{"anyOf":[{
"$ref":"#/components/schemas/Part-Input"},{"type":"null"}]}},"type":"object","required":["customer","pay"],"title":"Order"},
"Order-Output":{"properties":{"customer":{"$ref":"#/components/schemas/Customer"},"pay":{"$ref":"#/components/schemas/Card"},
"size":{"$ref":"#/components/schemas/Size","default":"m"},"part":{"anyOf":[{"$ref":"#/components/schemas/Part-Output"},{
"type":"null"}]}},"type":"object","required":["customer","pay"],"title":"Order"},"Part-Input":{"properties":{"weight":{
"type":"number","title":"Weight"},"parts":{"items":{"$ref":"#/components/schemas/Part-Input"},"type":"array","title":"Parts",
"default":[]},"colour":{"type":"string","title":"Colour","default":"grey"}},"type":"object","required":["weight"],
"title":"Part"},"Part-Output":{"properties":{"weight":{"type":"number","title":"Weight"},"parts":{"items":{
"$ref":"#/components/schemas/Part-Output"},"type":"array","title":"Parts","default":[]},"colour":{"type":"string",
"title":"Colour","default":"grey"}},"type":"object","required":["weight"],"title":"Part"},"Size":{"type":"string","enum":["s",
"m","l"],"title":"Size"}},"securitySchemes":{"HTTPBearer":{"type":"http","scheme":"bearer"}}}}
"""


# Schemas of a body, before and after; and what is said of it.
REQUESTS: list[tuple[Any, Any, list[str]]] = [
    # fields
    (fields(), fields("a", a=STRING), [": the body needs a, which is new"]),
    (fields("a", a=STRING), fields("a b", a=STRING, b=STRING), [": the body needs b, which is new"]),
    (fields(a=STRING), fields("a", a=STRING), [": the body needs a, which was optional"]),
    (fields("a", a=STRING), fields(a=STRING), []),
    (fields(), fields(a=STRING), []),
    (fields("a", a=STRING, b=STRING), fields("a", a=STRING), []),
    (fields(a=fields()), fields(a=fields("b", b=STRING)), [": the body needs a.b, which is new"]),
    (fields(a=items(fields())), fields(a=items(fields("b", b=STRING))), [": the body needs a[].b, which is new"]),
    (items(fields()), items(fields("b", b=STRING)), [": the body needs [].b, which is new"]),
    (fields(), {"allOf": [fields(), fields("b", b=STRING)]}, [": the body needs b, which is new"]),
    (fields("b", b=STRING), {"allOf": [fields(), fields("b", b=STRING)]}, []),
    (
        {"allOf": [fields(a=INTEGER), fields("b", a={"minimum": 2}, b=STRING)]},
        fields("b", a={**INTEGER, "minimum": 2}, b=STRING),
        [],
    ),
    (
        fields("a", a={**INTEGER, "minimum": 1}),
        {"allOf": [fields(a=INTEGER), fields("a", a={"minimum": 2})]},
        [": a in the body must be an integer of at least 2 now (was an integer of at least 1)"],
    ),
    ({"allOf": [{"minimum": 1}, {"minimum": 3}, INTEGER]}, {**INTEGER, "minimum": 3}, []),
    ({"allOf": [{"maxLength": 9}, {"maxLength": 3}, STRING]}, {**STRING, "maxLength": 3}, []),
    ({"allOf": [listing("a", "b"), listing("b", "c")]}, {"const": "b"}, []),
    ({"allOf": [items(STRING), items({"maxLength": 3})]}, items({**STRING, "maxLength": 3}), []),
    ({"allOf": [NUMBER, INTEGER]}, INTEGER, []),
    (INTEGER, {"allOf": [NUMBER, INTEGER]}, []),
    (NUMBER, {"allOf": [NUMBER, INTEGER]}, [": the body must be an integer now (was a number)"]),
    ({"allOf": [STRING, INTEGER]}, NULL, []),
    (fields(a=STRING), fields(a=STRING, closed=True), [": the body takes no other fields any more"]),
    (
        fields(a=STRING, b=STRING),
        fields(a=STRING, closed=True),
        [": the body takes no field b any more", ": the body takes no other fields any more"],
    ),
    (fields(a=STRING, b=STRING, closed=True), fields(a=STRING, closed=True), [": the body takes no field b any more"]),
    (fields(a=STRING, closed=True), fields(a=STRING, b=STRING, closed=True), []),
    (fields(a=STRING, closed=True), fields(a=STRING), []),
    # dictionaries
    (
        {"type": "object", "additionalProperties": STRING},
        {"type": "object", "additionalProperties": INTEGER},
        [": * in the body must be an integer now (was a string)"],
    ),
    (
        {"type": "object", "patternProperties": {"^a": STRING}},
        {"type": "object", "patternProperties": {"^a": INTEGER}},
        [": * in the body must be an integer now (was a string)"],
    ),
    (
        {"type": "object", "additionalProperties": STRING},
        fields(a=INTEGER),
        [": a in the body must be an integer now (was a string)"],
    ),
    ({"type": "object", "additionalProperties": True}, fields(a=INTEGER), []),
    ({**fields(a=STRING), "additionalProperties": STRING}, fields(), []),
    (
        fields(a=STRING, closed=True),
        {"type": "object", "additionalProperties": INTEGER},
        [": a in the body must be an integer now (was a string)"],
    ),
    (
        {"type": "object"},
        {"type": "object", "minProperties": 1},
        [": the body must be an object of at least 1 fields now (was an object)"],
    ),
    ({"type": "object"}, {"type": "object", "minProperties": 0}, []),
    (
        {"type": "object"},
        {"type": "object", "maxProperties": 5},
        [": the body must be an object of at most 5 fields now (was an object)"],
    ),
    # types
    (NUMBER, INTEGER, [": the body must be an integer now (was a number)"]),
    (INTEGER, NUMBER, []),
    (either(STRING, INTEGER), STRING, [": the body must be a string now (was a string or an integer)"]),
    ({"type": ["string", "integer"]}, STRING, [": the body must be a string now (was a string or an integer)"]),
    ({"oneOf": [STRING, INTEGER]}, either(INTEGER, STRING, NULL), []),
    (STRING, {"type": ["integer", "string"]}, []),
    (either(STRING, NULL), STRING, [": the body must be a string now (was a string or null)"]),
    ({**STRING, "nullable": True}, STRING, [": the body must be a string now (was a string or null)"]),
    ({**STRING, "nullable": True}, {"type": ["null", "string"]}, []),
    (either(STRING, NULL), {**STRING, "nullable": True}, []),
    ({"$ref": "#/components/schemas/Leaf", "nullable": True}, LEAF, [": the body must be an object now (was an object or null)"]),
    ({}, STRING, [": the body must be a string now (was anything)"]),
    (True, STRING, [": the body must be a string now (was anything)"]),
    (STRING, False, [": the body must be nothing now (was a string)"]),
    (False, STRING, []),
    (STRING, {}, []),
    (fields(a=STRING), fields(a=fields()), [": a in the body must be an object now (was a string)"]),
    # listed values
    (listing("a", "b", "c", type="string"), listing("c", "a", type="string"), [': the body cannot be "b" any more']),
    (listing("a", type="string"), listing("b", "a", type="string"), []),
    (listing("a", "b"), either({"const": "b"}, listing("a")), []),
    ({"const": "a"}, {"const": "b"}, [': the body cannot be "a" any more']),
    ({"const": "a"}, listing("a"), []),
    (STRING, listing("a", "b"), [': the body must be one of "a", "b" now (was a string)']),
    (listing("a", "b"), STRING, []),
    (listing("a", "bcd"), {**STRING, "minLength": 1, "maxLength": 3}, []),
    (
        listing("a", "bcd"),
        {**STRING, "maxLength": 2},
        [': the body must be a string of at most 2 characters now (was one of "a", "bcd")'],
    ),
    (listing(1, 5), {**INTEGER, "minimum": 1, "maximum": 5}, []),
    (listing(1, 5), {**INTEGER, "minimum": 2}, [": the body must be an integer of at least 2 now (was one of 1, 5)"]),
    (listing(1, True), listing(1), [": the body must be 1 now (was 1 or true)"]),
    (listing(1, "a", None), listing("a"), [': the body must be "a" now (was 1 or "a" or null)']),
    (listing(1, 2.5, type="number"), listing(2.5, type="number"), [": the body cannot be 1 any more"]),
    (listing(1.0), listing(1), []),
    (listing("a"), {**STRING, "pattern": "a", "format": "letter"}, []),
    (listing("a", 1, type="string"), listing("a"), []),
    (INTEGER, listing("a", type=["string", "null"]), [': the body must be "a" now (was an integer)']),
    (fields(kind=listing("a", "b")), STRING, [": the body must be a string now (was an object)"]),
    (listing(True), {"type": "boolean"}, []),
    (listing([1]), items(INTEGER), []),
    ({"const": {"a": 1}}, fields("a", a=INTEGER), []),
    (listing(*range(20, 32)), listing(31), [": the body cannot be 20, 21, 22, 23, 24, 25, 26, 27 and 3 more any more"]),
    # limits
    (INTEGER, {**INTEGER, "minimum": 1}, [": the body must be an integer of at least 1 now (was an integer)"]),
    (
        {**INTEGER, "minimum": 1},
        {**INTEGER, "minimum": 2, "maximum": 5},
        [": the body must be an integer of 2 to 5 now (was an integer of at least 1)"],
    ),
    ({**INTEGER, "maximum": 5}, {**INTEGER, "maximum": 5.0}, []),
    (
        {**INTEGER, "maximum": 5},
        {**INTEGER, "maximum": 4},
        [": the body must be an integer of at most 4 now (was an integer of at most 5)"],
    ),
    ({**INTEGER, "minimum": 2, "maximum": 4}, {**INTEGER, "minimum": 1, "maximum": 5}, []),
    (
        {**NUMBER, "minimum": 0},
        {**NUMBER, "exclusiveMinimum": 0.0},
        [": the body must be a number of more than 0 now (was a number of at least 0)"],
    ),
    (
        {**NUMBER, "maximum": 1},
        {**NUMBER, "exclusiveMaximum": 1},
        [": the body must be a number of less than 1 now (was a number of at most 1)"],
    ),
    ({**NUMBER, "exclusiveMinimum": 0}, {**NUMBER, "minimum": 0}, []),
    ({**INTEGER, "exclusiveMinimum": 0}, {**INTEGER, "minimum": 1}, []),
    (
        {**NUMBER, "exclusiveMinimum": 0},
        {**NUMBER, "minimum": 1},
        [": the body must be a number of at least 1 now (was a number of more than 0)"],
    ),
    ({**INTEGER, "minimum": 1, "maximum": 9}, {**INTEGER, "exclusiveMinimum": 0, "exclusiveMaximum": 10}, []),
    ({**NUMBER, "minimum": 0, "exclusiveMinimum": True}, {**NUMBER, "exclusiveMinimum": 0}, []),
    (
        {**NUMBER, "maximum": 0},
        {**NUMBER, "maximum": 0, "exclusiveMaximum": True},
        [": the body must be a number of less than 0 now (was a number of at most 0)"],
    ),
    (STRING, {**STRING, "maxLength": 5}, [": the body must be a string of at most 5 characters now (was a string)"]),
    (
        {**STRING, "minLength": 1},
        {**STRING, "minLength": 2},
        [": the body must be a string of at least 2 characters now (was a string of at least 1 characters)"],
    ),
    (STRING, {**STRING, "minLength": 0}, []),
    (items(STRING), items(STRING, minItems=2, maxItems=2), [": the body must be an array of 2 items now (was an array)"]),
    (items(STRING), items(STRING, minItems=0), []),
    (items(STRING, maxItems=9), items(STRING, maxItems=10), []),
    (INTEGER, {**INTEGER, "multipleOf": 2.0}, [": the body must be an integer in steps of 2 now (was an integer)"]),
    ({**NUMBER, "multipleOf": 0.3}, {**NUMBER, "multipleOf": 0.1}, []),
    (
        {**NUMBER, "multipleOf": 0.1},
        {**NUMBER, "multipleOf": 0.3},
        [": the body must be a number in steps of 0.3 now (was a number in steps of 0.1)"],
    ),
    (INTEGER, {**NUMBER, "multipleOf": 1}, []),
    (NUMBER, {**NUMBER, "multipleOf": 1}, [": the body must be a number in steps of 1 now (was a number)"]),
    (STRING, {**STRING, "pattern": "^{a}$"}, [": the body must be a string matching ^{a}$ now (was a string)"]),
    (
        {**STRING, "pattern": "a"},
        {**STRING, "pattern": "b"},
        [": the body must be a string matching b now (was a string matching a)"],
    ),
    (STRING, {**STRING, "format": "uuid"}, [": the body must be a string in the format uuid now (was a string)"]),
    ({**STRING, "format": "uuid"}, STRING, []),
    (STRING, {**STRING, "format": "password", "writeOnly": True}, []),
    ({**STRING, "contentMediaType": "application/octet-stream"}, {**STRING, "format": "binary"}, []),
    (
        {**STRING, "maxLength": 5},
        either({**STRING, "maxLength": 4}, NULL),
        [": the body must be a string of at most 4 characters now (was a string of at most 5 characters)"],
    ),
    # tuples
    (
        {"type": "array", "prefixItems": [STRING, INTEGER], "minItems": 2, "maxItems": 2},
        {"type": "array", "prefixItems": [STRING, STRING], "minItems": 2, "maxItems": 2},
        [": [1] in the body must be a string now (was an integer)"],
    ),
    ({"prefixItems": [INTEGER], "maxItems": 1}, items(INTEGER), []),
    (items(STRING), {"prefixItems": [INTEGER], "items": STRING}, [": [0] in the body must be an integer now (was a string)"]),
    # unions of models
    (
        {"oneOf": [CAT, DOG]},
        CAT,
        [': the body must be an object with kind "cat" now (was an object with kind "cat" or an object with kind "dog")'],
    ),
    (either(CAT, DOG), {"oneOf": [DOG, CAT], "discriminator": {"propertyName": "kind"}}, []),
    (CAT, DOG, [': kind in the body cannot be "cat" any more', ": the body needs barks, which is new"]),
    (
        either(CAT, DOG),
        either(DOG, {**CAT, "required": ["kind", "lives", "name"]}),
        [": the body needs name, which is new"],
    ),
    (
        either(fields(kind={"const": "a"}), NULL),
        either({"oneOf": [fields(kind={"const": "a"})], "discriminator": {"propertyName": "kind"}}, NULL),
        [": the body needs kind, which was optional"],
    ),
    (either(fields("a", a=STRING), fields("b", b=STRING)), either(fields("b", b=STRING), fields("a", a=STRING)), []),
    (
        either({**fields("a", a=STRING), "title": "A"}, {**fields("b", b=STRING), "title": "B"}),
        either({**fields("a c d", a=STRING, c=STRING, d=STRING), "title": "A"}, {**fields("b", b=STRING), "title": "B"}),
        [": the body needs c, which is new", ": the body needs d, which is new"],
    ),
    # references
    (TREE, {"$ref": "#/components/schemas/Tree", "description": "a tree"}, []),
    (LEAF, fields("size", size=INTEGER), []),
    (fields("size", size=NUMBER), LEAF, [": size in the body must be an integer now (was a number)"]),
    (STRING, {"$ref": "#/components/schemas/a~1b~0c"}, []),
    (INTEGER, {"$ref": "#/components/schemas/Ring"}, []),
    # what says nothing of values
    (
        {**fields(a={**STRING, "title": "A", "description": "x", "default": "y", "examples": ["z"]}), "title": "T"},
        {"properties": {"a": {**STRING, "deprecated": True}}, "type": "object"},
        [],
    ),
    # what cannot be understood
    (STRING, "junk", []),
    (STRING, {"$ref": "#/components/schemas/Gone"}, []),
    (STRING, {"$ref": "other.json#/components/schemas/Leaf"}, []),
    (STRING, {"$ref": ["x"], "anyOf": "x", "allOf": {}, "enum": 5, "type": "file", "required": 7, "properties": [1]}, []),
    ({**INTEGER, "maximum": 10**400}, {**INTEGER, "maximum": "x", "multipleOf": 0, "minLength": True}, []),
    (fields(a=STRING), {"type": "object", "properties": "x", "required": [["x"]], "additionalProperties": "x"}, []),
    (items(STRING), {"type": "array", "items": "x", "prefixItems": "x", "maxItems": float("inf")}, []),
    (items(STRING), {"type": "array", "items": [INTEGER]}, []),
    (INTEGER, {**INTEGER, "multipleOf": "x"}, []),
    (
        {**INTEGER, "minimum": 2},
        {"allOf": [INTEGER, {"minimum": "x", "default": 1}, {"minimum": 2, "default": 3}, {"minimum": "y"}]},
        [],
    ),
    ({**INTEGER, "minimum": 2}, {"allOf": [INTEGER, {"minimum": 2}, {"minimum": "x"}]}, []),
    (fields("a", closed=True), fields("a", closed=True), []),
    (STRING, {"anyOf": [{"type": "string", "maxLength": length} for length in range(300)]}, []),
    (STRING, {"allOf": [either(*[{"maxLength": length} for length in range(9)])] * 99}, []),
]

ANSWERS: list[tuple[Any, Any, list[str]]] = [
    (fields("a b", a=STRING, b=STRING), fields("a", a=STRING), [": the answer 200 has no field b any more"]),
    (fields(a=STRING, b=STRING), fields(a=STRING), [": the answer 200 has no field b any more"]),
    (fields("a", a=STRING), fields(a=STRING), [": the answer 200 may lack a, which was always there"]),
    (fields(a=STRING), fields("a b", a=STRING, b=STRING), []),
    (fields("a", closed=True, a=STRING), fields("a b", closed=True, a=STRING, b=STRING), []),
    (fields("a", closed=True, a=STRING), fields("a", a=STRING), []),
    (fields(closed=True), {"type": "object"}, []),
    ({"allOf": [fields(a=STRING), fields(b=STRING)]}, fields(b=STRING), [": the answer 200 has no field a any more"]),
    ({"allOf": [fields(a=STRING), fields(b=STRING)]}, fields(a=STRING), [": the answer 200 has no field b any more"]),
    (items(fields("a", a=STRING)), items(fields()), [": the answer 200 has no field [].a any more"]),
    (fields("a", a=STRING), {"type": "object", "additionalProperties": True}, [": the answer 200 has no field a any more"]),
    (fields("a"), fields("a"), []),
    (fields("a"), fields("a", a=STRING), []),
    (STRING, either(STRING, NULL), [": the answer 200 may be a string or null now (was a string)"]),
    (STRING, either(STRING, INTEGER), [": the answer 200 may be a string or an integer now (was a string)"]),
    (either(STRING, NULL), STRING, []),
    (INTEGER, NUMBER, [": the answer 200 may be a number now (was an integer)"]),
    (NUMBER, INTEGER, []),
    (listing("a"), listing("a", "b"), [': the answer 200 may be "b" now, which is new']),
    (listing("a", "b"), listing("a"), []),
    (listing("a"), STRING, [': the answer 200 may be a string now (was "a")']),
    (
        {**INTEGER, "maximum": 5},
        {**INTEGER, "maximum": 6},
        [": the answer 200 may be an integer of at most 6 now (was an integer of at most 5)"],
    ),
    ({**INTEGER, "maximum": 5}, {**INTEGER, "maximum": 4}, []),
    ({**STRING, "format": "date"}, STRING, [": the answer 200 may be a string now (was a string in the format date)"]),
    (STRING, {**STRING, "format": "date"}, []),
    (STRING, {}, [": the answer 200 may be anything now (was a string)"]),
    ({}, STRING, []),
    (
        CAT,
        either(CAT, DOG),
        [': the answer 200 may be an object with kind "cat" or an object with kind "dog" now (was an object with kind "cat")'],
    ),
    (either(CAT, DOG), CAT, []),
    (
        {"oneOf": [fields(kind={"const": "a"}), CAT], "discriminator": {"propertyName": "kind"}},
        fields(kind={"const": "a"}),
        [],
    ),
    (
        {"type": "object", "additionalProperties": INTEGER},
        {"type": "object", "additionalProperties": STRING},
        [": * in the answer 200 may be a string now (was an integer)"],
    ),
    ({"type": "object", "additionalProperties": INTEGER}, fields(a=INTEGER), []),
    (
        {"type": "object", "additionalProperties": INTEGER},
        fields(a=STRING),
        [": a in the answer 200 may be a string now (was an integer)"],
    ),
    (
        {"type": "object", "additionalProperties": INTEGER},
        {"type": "object"},
        [": * in the answer 200 may be anything now (was an integer)"],
    ),
    (
        {"title": "A", **fields()},
        either({"title": "B", **fields()}, NULL),
        [": the answer 200 may be an object (B) or null now (was an object (A))"],
    ),
    (
        fields("a", a=STRING),
        {"type": "object", "additionalProperties": INTEGER},
        [": the answer 200 has no field a any more"],
    ),
    (TREE, LEAF, [": the answer 200 has no field children any more", ": the answer 200 has no field leaf any more"]),
]

# Parameters in a query, where values are text.
PARAMETERS: list[tuple[Any, Any, list[str]]] = [
    (
        {**INTEGER, "minimum": 1, "maximum": 100},
        {**INTEGER, "minimum": 1, "maximum": 50},
        [": the parameter q must be an integer of 1 to 50 now (was an integer of 1 to 100)"],
    ),
    (either(STRING, NULL), STRING, []),
    (
        either(INTEGER, NULL),
        either({**INTEGER, "minimum": 1}, NULL),
        [": the parameter q must be an integer of at least 1 now (was an integer)"],
    ),
    (INTEGER, STRING, []),
    (STRING, INTEGER, [": the parameter q must be an integer now (was a string)"]),
    (
        {"type": "boolean"},
        {**STRING, "maxLength": 3},
        [": the parameter q must be a string of at most 3 characters now (was a boolean)"],
    ),
    (STRING, items(STRING), []),
    (STRING, items(STRING, minItems=1), []),
    (STRING, items(STRING, maxItems=1), []),
    (INTEGER, items(STRING), []),
    (STRING, items(STRING, minItems=2), [": the parameter q must be an array of at least 2 items now (was a string)"]),
    (items(STRING), STRING, [": the parameter q must be a string now (was an array)"]),
    (items(STRING), items(INTEGER), [": [] in the parameter q must be an integer now (was a string)"]),
    (items(INTEGER), items(STRING), []),
]

DOCUMENTS: list[tuple[Any, Any, list[str]]] = [
    # operations
    (document(path="/items/{item_id}", method="get"), document(path="/items/{id}", method="get"), []),
    (
        document(path="/items/{item_id}", method="get"),
        document(path="/items", method="get"),
        ["GET /items/{item_id} was removed"],
    ),
    (document(method="get"), document(method="put"), ["GET /x was removed"]),
    (document(), {**document(), "paths": {**document()["paths"], "/y": {"get": {}}}}, []),
    (
        {"paths": {"/a/{x}": {"get": {}}, "/a/{y}": {"put": {}}}},
        {"paths": {"/a/{z}": {"put": {}, "get": {}}}},
        [],
    ),
    (document(), {}, ["POST /x was removed"]),
    ({}, document(), []),
    (
        document({"operationId": "a", "summary": "b", "tags": ["c"], "deprecated": False}),
        document({"operationId": "d", "deprecated": True}),
        [],
    ),
    # parameters
    (asks(), asks(parameter("a", required=True)), ["POST /x needs the parameter a, which is new"]),
    (asks(), asks(parameter("a")), []),
    (asks(parameter("a")), asks(parameter("a", required=True)), ["POST /x needs the parameter a, which was optional"]),
    (asks(parameter("a", required=True)), asks(), []),
    (asks(), asks(parameter("x-a", where="header", required=True)), ["POST /x needs the header x-a, which is new"]),
    (asks(), asks(parameter("a", where="cookie", required=True)), ["POST /x needs the cookie a, which is new"]),
    (asks(parameter("a")), asks(parameter("a", where="cookie", required=True)), ["POST /x needs the cookie a, which is new"]),
    (
        asks(parameter("X-A", where="header")),
        asks(parameter("x-a", where="header", required=True)),
        ["POST /x needs the header X-A, which was optional"],
    ),
    (asks(parameter("a")), asks(parameter("A", required=True)), ["POST /x needs the parameter A, which is new"]),
    (
        asks(parameter("a"), parameter("b", INTEGER)),
        asks(parameter("b", INTEGER), parameter("a", INTEGER)),
        ["POST /x: the parameter a must be an integer now (was a string)"],
    ),
    (
        document({"parameters": [parameter("a", STRING, "path", True), parameter("b", STRING, "path", True)]}, "/{a}/{b}"),
        document({"parameters": [parameter("a", INTEGER, "path", True), parameter("c", STRING, "path", True)]}, "/{c}/{a}"),
        ["POST /{a}/{b}: the parameter b must be an integer now (was a string)"],
    ),
    (
        {"paths": {"/x": {"parameters": [parameter("a")], "post": {}}}},
        document({"parameters": [parameter("a", required=True)]}),
        ["POST /x needs the parameter a, which was optional"],
    ),
    (
        asks({"$ref": "#/components/parameters/Page"}),
        asks(parameter("page", {"type": "boolean"})),
        ["POST /x: the parameter page must be a boolean now (was an integer)"],
    ),
    (document(path="/{a}"), document({"parameters": [parameter("a", STRING, "path", True)]}, "/{a}"), []),
    # bodies
    (document(), sends(STRING, required=True), ["POST /x needs a body, which is new"]),
    (document(), sends(STRING), []),
    (sends(STRING), sends(STRING, required=True), ["POST /x needs a body, which was optional"]),
    (sends(STRING, required=True), sends(STRING), []),
    (sends(STRING, required=True), document(), []),
    (sends(STRING), sends(STRING, "application/xml"), ["POST /x takes no application/json any more"]),
    (sends(STRING), sends(STRING, "Application/JSON; charset=utf-8"), []),
    (sends(STRING), sends(INTEGER, "application/*"), ["POST /x: the body must be an integer now (was a string)"]),
    (sends(fields(a=either(INTEGER, NULL)), "multipart/form-data"), sends(fields(a=STRING), "multipart/form-data"), []),
    (
        sends(fields(a=either(INTEGER, NULL))),
        sends(fields(a=INTEGER)),
        ["POST /x: a in the body must be an integer now (was an integer or null)"],
    ),
    # answers
    (answers(STRING), answers(STRING, status="201"), ["POST /x does not answer 200 any more"]),
    (answers(STRING), document(), ["POST /x does not answer 200 any more"]),
    (document(), answers(STRING), []),
    (answers(STRING, "text/csv"), answers(STRING), ["POST /x: the answer 200 is not text/csv any more"]),
    (answers(STRING, "text/*"), answers(STRING, "text/csv"), []),
    (document({"responses": {"204": {}, "404": content(STRING)}}), document({"responses": {"204": content(STRING)}}), []),
    (answers(STRING), document({"responses": {"200": {}}}), ["POST /x: the answer 200 is not application/json any more"]),
    (
        document({"requestBody": {"content": {"text/csv": {"schema": STRING}}}}),
        document({"requestBody": {"content": {"text/*": {"schema": INTEGER}, "text/csv": {"schema": STRING}}}}),
        [],
    ),
    (
        document({"responses": {"200": {"content": {"text/*": {"schema": STRING}}}}}),
        document({"responses": {"200": {"content": {"text/csv": {"schema": INTEGER}, "text/*": {"schema": STRING}}}}}),
        [],
    ),
    # security
    (document(), secured({"Bearer": []}), ["POST /x needs bearer authentication now (needed nothing)"]),
    (secured({"Bearer": []}), document(), []),
    (secured({"OAuth": ["write"]}), secured({"Bearer": []}), []),
    (secured({"Bearer": []}), secured({"Key": []}, {"Bearer": []}), []),
    (secured({}), secured({"Key": []}, {}), []),
    (
        secured({"Bearer": []}),
        secured({"Key": []}, {"Basic": []}),
        ["POST /x needs basic authentication or the header X-Key now (needed bearer authentication)"],
    ),
    (
        secured({"Bearer": []}, {}),
        secured({"Bearer": [], "Key": []}),
        ["POST /x needs bearer authentication and the header X-Key now (needed bearer authentication or nothing)"],
    ),
    (document(), document(security=[{"Gone": []}]), ["POST /x needs gone authentication now (needed nothing)"]),
    (document(security=[{"Key": []}]), document({"security": []}), []),
    # what cannot be understood
    (document(), {"paths": []}, ["POST /x was removed"]),
    (document("junk"), document([]), []),
    (document({"requestBody": {"$ref": "#/paths/~1x/post/requestBody"}}), document({"requestBody": {"$ref": "#"}}), []),
]

CASES = [
    *[(sends(old), sends(new), [f"POST /x{line}" for line in lines]) for old, new, lines in REQUESTS],
    *[(answers(old), answers(new), [f"POST /x{line}" for line in lines]) for old, new, lines in ANSWERS],
    *[
        (asks(parameter("q", old)), asks(parameter("q", new)), [f"POST /x{line}" for line in lines])
        for old, new, lines in PARAMETERS
    ],
    *DOCUMENTS,
]


@pytest.mark.parametrize(("live", "candidate", "lines"), CASES)
def test_what_breaks_is_listed_and_nothing_else(live: Any, candidate: Any, lines: list[str]) -> None:
    before = copy.deepcopy((live, candidate))
    assert breaking_changes(live, candidate) == lines
    assert (live, candidate) == before


@pytest.mark.parametrize(("live", "candidate"), [case[:2] for case in CASES])
def test_nothing_breaks_where_nothing_changed(live: Any, candidate: Any) -> None:
    for one in (live, candidate):
        assert breaking_changes(one, copy.deepcopy(one)) == []


def test_a_recursive_schema_is_compared_to_its_end() -> None:
    candidate = answers(TREE)
    candidate["components"] = copy.deepcopy(COMPONENTS)
    candidate["components"]["schemas"]["Leaf"] = fields()
    assert breaking_changes(answers(TREE), candidate) == ["POST /x: the answer 200 has no field leaf.size any more"]
    assert breaking_changes(answers(items(TREE)), candidate | answers(items(TREE)) | {"components": candidate["components"]}) == [
        "POST /x: the answer 200 has no field [].leaf.size any more"
    ]


@pytest.mark.parametrize("name", ["Loop", "Ring", "Knot", "Bond", "Tree"])
def test_a_schema_that_leads_to_itself_ends(name: str) -> None:
    schema = {"$ref": f"#/components/schemas/{name}"}
    for other in (schema, either(schema, NULL), {"allOf": [schema, schema]}):
        assert breaking_changes(sends(schema), sends(other)) == []


def test_many_models_that_hold_each_other_are_compared_soon() -> None:
    names = [f"M{number}" for number in range(30)]
    models = {
        name: fields("n", n=INTEGER, **dict[str, Any]({other: {"$ref": f"#/components/schemas/{other}"} for other in names}))
        for name in names
    }
    live = {**answers(LEAF), "components": {"schemas": {**models, "Leaf": models["M0"]}}}
    candidate = copy.deepcopy(live)
    candidate["components"]["schemas"]["M7"]["properties"]["n"] = NUMBER
    assert "POST /x: M7.n in the answer 200 may be a number now (was an integer)" in breaking_changes(live, candidate)


def test_each_field_of_many_is_compared() -> None:
    properties: dict[str, Any] = {f"f{number}": {**STRING, "maxLength": number} for number in range(99)}
    live = fields(**properties)
    candidate = fields(**{**live["properties"], "f98": INTEGER})
    assert breaking_changes(sends(live), sends(candidate)) == [
        "POST /x: f98 in the body must be an integer now (was a string of at most 98 characters)"
    ]


def test_a_deeply_nested_schema_ends() -> None:
    live: dict[str, Any] = STRING
    union: dict[str, Any] = STRING
    for _ in range(400):
        live, union = fields(a=live), either(union)
    assert breaking_changes(sends(live), sends(live)) == []
    assert breaking_changes(sends(union), sends(INTEGER)) == ["POST /x: the body must be an integer now (was anything)"]


def test_documents_of_fastapi_are_compared() -> None:
    live, candidate = json.loads(LIVE), json.loads(CANDIDATE)
    assert breaking_changes(live, json.loads(LIVE)) == breaking_changes(candidate, json.loads(CANDIDATE)) == []
    assert breaking_changes(live, candidate) == [
        "DELETE /items/{item_id} was removed",
        "GET /items/{item_id} needs the header x-tenant, which is new",
        "GET /items/{item_id}: the answer 200 has no field price any more",
        "GET /items: the answer 200 has no field [].price any more",
        "GET /items: the parameter limit must be an integer of 1 to 50 now (was an integer of 1 to 100)",
        "POST /orders needs bearer authentication now (needed nothing)",
        "POST /orders: customer.name in the body must be a string of 1 to 40 characters now (was a string of 1 to 50 characters)",
        'POST /orders: pay in the body must be an object with kind "card" now '
        '(was an object with kind "card" or an object with kind "cash")',
        'POST /orders: size in the answer 201 may be "l" now, which is new',
        "POST /orders: the body needs customer.email, which is new",
    ]


def test_other_names_of_models_and_another_order_break_nothing() -> None:
    live = json.loads(LIVE)
    renamed = LIVE
    for name in live["components"]["schemas"]:
        renamed = renamed.replace(f'schemas/{name}"', f'schemas/New{name}"').replace(f'"{name}":{{', f'"New{name}":{{')
    assert breaking_changes(live, turned(json.loads(renamed))) == []


def turned(value: Any) -> Any:
    """A document with everything in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(each) for key, each in reversed(value.items())}
    return [turned(each) for each in reversed(value)] if isinstance(value, list) else value


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each part of a document, as what it is in and its key there."""
    for key, each in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(each, (dict, list)):
            yield from places(each)


@pytest.mark.parametrize("junk", [None, "x", 5, [], {}, [[None]], {"$ref": "#/nowhere"}, True])
def test_no_part_of_a_document_must_be_what_it_should(junk: Any) -> None:
    live, damaged = json.loads(LIVE), json.loads(LIVE)
    for number, (parent, key) in enumerate(places(damaged)):
        whole, parent[key] = parent[key], junk
        if number % 5 == 0:
            assert all(isinstance(line, str) for line in breaking_changes(live, damaged) + breaking_changes(damaged, live))
            assert breaking_changes(damaged, damaged) == []
        parent[key] = whole
