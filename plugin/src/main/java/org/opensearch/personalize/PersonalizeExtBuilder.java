package org.opensearch.personalize;

import java.io.IOException;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;

import org.opensearch.common.CheckedFunction;
import org.opensearch.core.ParseField;
import org.opensearch.core.common.ParsingException;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.ConstructingObjectParser;
import org.opensearch.core.xcontent.ObjectParser.ValueType;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.search.SearchExtBuilder;

import static org.opensearch.core.xcontent.ConstructingObjectParser.optionalConstructorArg;

/**
 * What one search asks for, in {@code ext.personalize}; null where the search does not say.
 *
 * <p>The keys are the sidecar's: {@code enabled, user_id, session_id, window_size, weight,
 * attributes, diversity, explain, state}.
 */
public final class PersonalizeExtBuilder extends SearchExtBuilder {

    /** Name of the ext section. */
    public static final String NAME = "personalize";

    private static final ParseField ENABLED = new ParseField("enabled");
    private static final ParseField USER_ID = new ParseField("user_id");
    private static final ParseField SESSION_ID = new ParseField("session_id");
    private static final ParseField WINDOW_SIZE = new ParseField("window_size");
    private static final ParseField WEIGHT = new ParseField("weight");
    private static final ParseField ATTRIBUTES = new ParseField("attributes");
    private static final ParseField DIVERSITY = new ParseField("diversity");
    private static final ParseField EXPLAIN = new ParseField("explain");
    private static final ParseField STATE = new ParseField("state");

    private static final ConstructingObjectParser<PersonalizeExtBuilder, Void> PARSER = parser();

    private final Boolean enabled;
    private final Shopper shopper;
    private final Integer windowSize;
    private final Double weight;
    private final Double diversity;
    private final Boolean explain;
    private final Long state;

    PersonalizeExtBuilder(
        Boolean enabled,
        Shopper shopper,
        Integer windowSize,
        Double weight,
        Double diversity,
        Boolean explain,
        Long state
    ) {
        this.enabled = enabled;
        this.shopper = shopper;
        this.windowSize = windowSize;
        this.weight = weight;
        this.diversity = diversity;
        this.explain = explain;
        this.state = state;
    }

    /** Reads what {@link #writeTo} wrote on another node. */
    public PersonalizeExtBuilder(StreamInput in) throws IOException {
        this.enabled = in.readOptionalBoolean();
        this.shopper = new Shopper(in);
        this.windowSize = in.readOptionalInt();
        this.weight = in.readOptionalDouble();
        this.diversity = in.readOptionalDouble();
        this.explain = in.readOptionalBoolean();
        this.state = in.readOptionalLong();
    }

    /**
     * Parses the section of a search request.
     *
     * @throws ParsingException (400) naming a key that is unknown or a value out of range
     */
    public static PersonalizeExtBuilder fromXContent(XContentParser parser) throws IOException {
        PersonalizeExtBuilder ext = PARSER.parse(parser, null);
        if (ext.windowSize != null && ext.windowSize < 1) {
            throw outOfRange(parser, WINDOW_SIZE, ext.windowSize, "at least 1");
        }
        checkShare(parser, WEIGHT, ext.weight);
        checkShare(parser, DIVERSITY, ext.diversity);
        return ext;
    }

    /**
     * Returns the sections that other plugins own. Shards need no others, a second search may not
     * have them, and a remote cluster without this plugin could not read them.
     */
    static List<SearchExtBuilder> without(List<SearchExtBuilder> exts) {
        return exts.stream()
            .filter(ext -> ext instanceof PersonalizeExtBuilder == false)
            .filter(ext -> ext instanceof ForeignExtBuilder == false)
            .toList();
    }

    Boolean enabled() {
        return enabled;
    }

    Shopper shopper() {
        return shopper;
    }

    Integer windowSize() {
        return windowSize;
    }

    Double weight() {
        return weight;
    }

    Double diversity() {
        return diversity;
    }

    Boolean explain() {
        return explain;
    }

    Long state() {
        return state;
    }

    @Override
    public String getWriteableName() {
        return NAME;
    }

    @Override
    public void writeTo(StreamOutput out) throws IOException {
        out.writeOptionalBoolean(enabled);
        shopper.writeTo(out);
        out.writeOptionalInt(windowSize);
        out.writeOptionalDouble(weight);
        out.writeOptionalDouble(diversity);
        out.writeOptionalBoolean(explain);
        out.writeOptionalLong(state);
    }

    @Override
    public XContentBuilder toXContent(XContentBuilder builder, Params params) throws IOException {
        Map<String, Object> attributes = shopper.attributes();
        builder.startObject(NAME);
        field(builder, ENABLED, enabled);
        field(builder, USER_ID, shopper.userId());
        field(builder, SESSION_ID, shopper.sessionId());
        field(builder, WINDOW_SIZE, windowSize);
        field(builder, WEIGHT, weight);
        field(builder, ATTRIBUTES, attributes.isEmpty() ? null : attributes);
        field(builder, DIVERSITY, diversity);
        field(builder, EXPLAIN, explain);
        field(builder, STATE, state);
        return builder.endObject();
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof PersonalizeExtBuilder that
            && Objects.equals(enabled, that.enabled)
            && shopper.equals(that.shopper)
            && Objects.equals(windowSize, that.windowSize)
            && Objects.equals(weight, that.weight)
            && Objects.equals(diversity, that.diversity)
            && Objects.equals(explain, that.explain)
            && Objects.equals(state, that.state);
    }

    @Override
    public int hashCode() {
        return Objects.hash(
            enabled,
            shopper,
            windowSize,
            weight,
            diversity,
            explain,
            state
        );
    }

    private static ConstructingObjectParser<PersonalizeExtBuilder, Void> parser() {
        ConstructingObjectParser<PersonalizeExtBuilder, Void> parser =
            new ConstructingObjectParser<>(
                NAME,
                a -> new PersonalizeExtBuilder(
                    (Boolean) a[0],
                    new Shopper((String) a[1], (String) a[2], attributes(a[5])),
                    (Integer) a[3],
                    (Double) a[4],
                    (Double) a[6],
                    (Boolean) a[7],
                    (Long) a[8]
                )
            );
        declare(parser, ENABLED, PersonalizeExtBuilder::readSwitch);
        declare(parser, USER_ID, Shopper::readId);
        declare(parser, SESSION_ID, Shopper::readId);
        declare(parser, WINDOW_SIZE, XContentParser::intValue);
        declare(parser, WEIGHT, XContentParser::doubleValue);
        parser.declareField(
            optionalConstructorArg(),
            (p, c) -> Shopper.readAttributes(p),
            ATTRIBUTES,
            ValueType.VALUE_OBJECT_ARRAY
        );
        declare(parser, DIVERSITY, XContentParser::doubleValue);
        declare(parser, EXPLAIN, PersonalizeExtBuilder::readSwitch);
        declare(parser, STATE, XContentParser::longValue);
        return parser;
    }

    /** Declares a key whose null means the same as its absence. */
    private static <T> void declare(
        ConstructingObjectParser<PersonalizeExtBuilder, Void> parser,
        ParseField field,
        CheckedFunction<XContentParser, T, IOException> read
    ) {
        parser.declareField(
            optionalConstructorArg(),
            (p, c) -> p.currentToken() == XContentParser.Token.VALUE_NULL ? null : read.apply(p),
            field,
            ValueType.VALUE
        );
    }

    @SuppressWarnings("unchecked")
    private static Map<String, Object> attributes(Object parsed) {
        return parsed == null ? Map.of() : (Map<String, Object>) parsed;
    }

    private static boolean readSwitch(XContentParser parser) throws IOException {
        return switch (parser.text().strip().toLowerCase(Locale.ROOT)) {
            case "true", "on", "yes", "1" -> true;
            case "false", "off", "no", "0" -> false;
            default -> throw new IllegalArgumentException("must be true or false");
        };
    }

    private static void field(XContentBuilder builder, ParseField field, Object value)
        throws IOException {
        if (value != null) {
            builder.field(field.getPreferredName(), value);
        }
    }

    private static void checkShare(XContentParser parser, ParseField field, Double value) {
        if (value != null && (value >= 0.0 && value <= 1.0) == false) {
            throw outOfRange(parser, field, value, "0-1");
        }
    }

    private static ParsingException outOfRange(
        XContentParser parser,
        ParseField field,
        Object value,
        String wanted
    ) {
        return new ParsingException(
            parser.getTokenLocation(),
            "[" + NAME + "] " + field.getPreferredName() + " is " + value + ", must be " + wanted
        );
    }
}
