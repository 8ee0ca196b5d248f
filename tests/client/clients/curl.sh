#!/usr/bin/env bash
# Reads a Tidings stream with nothing but curl and a shell loop, and resumes after every cut.
# A frame counts only when its blank line has come: the id of a frame that was cut is never used.
# Prints one line for each frame: its id, a tab, its data. Honours `retry:`. Usage: TOKEN=… curl.sh URL
set -u
url=$1
cursor=
retry_ms=50
while :; do
  id= data=
  resume=()
  [ -n "$cursor" ] && resume=(-H "Last-Event-ID: $cursor")
  while IFS= read -r line; do
    case $line in
      'id: '*) id=${line#id: } ;;
      'data: '*) data=${line#data: } ;;
      'retry: '*) retry_ms=${line#retry: } ;;
      '')
        [ -n "$data" ] && printf '%s\t%s\n' "$id" "$data"
        [ -n "$id" ] && cursor=$id
        id= data= ;;
    esac
  done < <(curl -sSN -H "Authorization: Bearer $TOKEN" -H 'Accept: text/event-stream' "${resume[@]}" "$url" 2>/dev/null)
  sleep "$(printf '%d.%03d' $((retry_ms / 1000)) $((retry_ms % 1000)))"
done
